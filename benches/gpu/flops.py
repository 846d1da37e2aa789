"""Counts what a case must compute and read, from its configuration: nothing is allocated.

`python flops.py` compares the counts at full size with the floors that the table states.
"""
import json, math, pathlib
import torch
from torch.utils.flop_counter import FlopCounterMode
import peer

ATTENTION = ("bmm", "attention")


class Meta(peer.Side):
    """The other side without data."""

    def build(self, case, part):
        self.gpu = False
        return super().build(case, part)

    def hashed(self, name, *shape):
        return torch.empty(shape, device="meta")


def forward(side, case):
    """FLOPs of attention and of all else in one forward pass, and the values of the parameters."""
    kind, part = case["kind"], {"encode": "vae", "decode": "vae", "text": "text_encoder"}.get(case["kind"], "transformer")
    model = side.build(dict(case), part)
    given = side.spec(case)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if kind == "encode":
            model.encode(side.hashed("", case["batch"], 3, *case[side.size]))
        elif kind == "decode":
            model.decode(side.hashed("", case["batch"], given["latent_channels"], *side.latents(case)), return_dict=False)
        elif kind == "text":
            model(torch.zeros(1, given["text"][0], dtype=torch.long, device="meta"))
        else:
            side.predict(case, model, **side.inputs(case), dtype=torch.float32)
    counts = counter.get_flop_counts()["Global"]
    attention = sum(count for op, count in counts.items() if any(name in str(op) for name in ATTENTION))
    values = sum(math.prod(param.shape) for param in model.parameters())
    return attention, sum(counts.values()) - attention, values, model


def branches(case, side, model):
    """FLOPs of an adapter's branches in one pass."""
    rank, names = 4 if side.size == "tiny" else case["rank"], peer.TARGETS[case["targets"]]
    frames, height, width = side.inputs(case)["latents"].shape[2:]
    text = side.spec(case)["text"][0]
    if case["model"].startswith("cog"):
        config = model.config
        tokens = text + frames * height * width // config.patch_size**2 // config.patch_size_t
    else:
        tokens = frames * height * width
    flops = 0
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name.endswith(tuple("." + target for target in names)):
            of_text = name.endswith(("attn2.to_k", "attn2.to_v"))
            flops += 2 * rank * (layer.in_features + layer.out_features) * case["batch"] * (text if of_text else tokens)
    return flops


def floor(case, size):
    """The least FLOPs and bytes of weights of a case."""
    side = Meta("meta", size, ".")
    attention, linear, values, model = forward(side, case)
    passes = 1
    if case["kind"] in ("train", "soak"):
        # Back: the inputs' gradients alone in frozen layers, and flash attention's own recomputation.
        flops, passes = 2 * linear + 3.5 * attention + 3 * branches(case, side, model), 2
    elif case["kind"] == "sample":
        flops, passes = (linear + attention) * case["steps"], case["steps"]
    else:
        flops = linear + attention
    return dict(flops=flops, bytes=2 * values * passes)


def main():
    wrong = 0
    for case in peer.TABLE["cases"]:
        if "floor_tflop" in case:
            counted = floor(case, "full")["flops"] / 1e12
            off = counted / case["floor_tflop"] - 1
            wrong += abs(off) > 0.03
            print(f"{case['name']:28} counted {counted:8.2f} TFLOP, table {case['floor_tflop']:8.2f}, {off:+.1%}")
    assert not wrong, f"{wrong} counts are off by more than 3%"


if __name__ == "__main__":
    main()
