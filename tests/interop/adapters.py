"""Adapters of pipe in diffusers and peft, and theirs in pipe: each side must predict the same.

Usage: adapters.py PIPE FOLDER, with the built binary and an empty folder to work in. Needs torch, diffusers
and peft. Works with the built-in model, a small CogVideoX 1.5. Compares one prediction of the transformer
on random input: with each exported form loaded, and with adapters that peft made brought into pipe,
summed, exported again and merged.
"""
import json
import pathlib
import subprocess
import sys

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.loaders.lora_pipeline import CogVideoXLoraLoaderMixin
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

binary, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
tiny = pathlib.Path(__file__).parents[2] / "assets/builtin_tiny"
PIPELINE = """
name = "adapters"
seed = 42

[stages.pairs]
kind = "dataset"
source = "builtin:figures"
task = "pose"
split = "train"
count = 1
size = [32, 32]

[stages.clips]
kind = "interpolate"
inputs = { pairs = "pairs" }
method = "linear"
frames = 5

[stages.prompt]
kind = "text_encode"
model = "builtin:tiny"

[stages.latents]
kind = "vae_encode"
inputs = { videos = "clips" }
model = "builtin:tiny"

[stages.lora]
kind = "lora_train"
inputs = { latents = "latents", text = "prompt" }
model = "builtin:tiny"
rank = 4
alpha = 2
modules = "qkvo"
steps = 3
learning_rate = 0.02

[stages.theirs]
kind = "lora_merge"
root = "theirs"
files = ["peft/adapter_model.safetensors"]

[stages.theirs_comfyui]
kind = "lora_merge"
root = "theirs"
files = ["comfyui.safetensors"]

[stages.theirs_diffusers]
kind = "lora_merge"
root = "theirs"
files = ["pytorch_lora_weights.safetensors"]

[stages.both]
kind = "lora_merge"
inputs = { first = "lora", second = "theirs" }
weights = [0.5, 2.0]

[stages.merged]
kind = "lora_merge"
inputs = { first = "both" }
model = "builtin:tiny"
"""


def pipe(*args):
    subprocess.run([binary, *args, "--cache", folder / "cache"], check=True, cwd=folder, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def export(stage, program="diffusers"):
    to = folder / f"{stage}_{program}"
    pipe("export", "adapters.toml", stage, "--to", to, "--format", program)
    return to


def transformer():
    return CogVideoXTransformer3DModel.from_pretrained(tiny / "transformer", torch_dtype=torch.float32).eval()


config = json.loads((tiny / "transformer/config.json").read_text())
torch.manual_seed(0)
latents = torch.randn(1, 2, config["in_channels"], 8, 8)
text = torch.randn(1, config["max_text_seq_length"], config["text_embed_dim"])
head_dim = config["attention_head_dim"]


def predict(model):
    rotary = get_3d_rotary_pos_embed(head_dim, None, (4, 4), 1, grid_type="slice", max_size=(32, 48))
    with torch.no_grad():
        return model(hidden_states=latents, encoder_hidden_states=text, timestep=torch.tensor([500]),
                     ofs=torch.tensor([2.0]), image_rotary_emb=rotary, return_dict=False)[0]


def with_file(path):
    """The prediction with a file loaded as diffusers loads it."""
    model = transformer()
    state, metadata = CogVideoXLoraLoaderMixin.lora_state_dict(str(path), return_lora_metadata=True)
    CogVideoXLoraLoaderMixin.load_lora_into_transformer(state, model, metadata=metadata)
    return predict(model)


def with_peft(path):
    return predict(PeftModel.from_pretrained(transformer(), str(path)))


good = []


def compare(what, found, wanted, tolerance=2e-5):
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    good.append(error <= tolerance)
    print(f"{what:58} {error:.1e} of {tolerance:.0e} {'ok' if good[-1] else 'FAILED'}")


folder.mkdir(parents=True, exist_ok=True)
(folder / "adapters.toml").write_text(PIPELINE)

# An adapter that peft makes, in the three forms of the field.
plain = predict(transformer())
made = get_peft_model(transformer(), LoraConfig(r=3, lora_alpha=6, target_modules=["to_q", "to_v"]))
with torch.no_grad():
    for name, value in made.named_parameters():
        if "lora_" in name:
            value.normal_(std=0.05)
theirs = predict(made)
made.save_pretrained(folder / "theirs/peft")
state = load_file(folder / "theirs/peft/adapter_model.safetensors")
names = {key: key.removeprefix("base_model.model.") for key in state}
settings = {"transformer.r": 3, "transformer.lora_alpha": 6, "transformer.target_modules": ["to_q", "to_v"]}
save_file({f"transformer.{names[k]}": v for k, v in state.items()}, folder / "theirs/pytorch_lora_weights.safetensors",
          {"format": "pt", "lora_adapter_metadata": json.dumps(settings)})
comfyui = {f"diffusion_model.{names[k]}": v for k, v in state.items()}
comfyui |= {f"diffusion_model.{names[k].removesuffix('.lora_A.weight')}.alpha": torch.tensor(6.0)
            for k in state if k.endswith("lora_A.weight")}
save_file(comfyui, folder / "theirs/comfyui.safetensors")

pipe("run", "adapters.toml")
ours = with_file(export("lora") / "pytorch_lora_weights.safetensors")
print(f"{'the adapter moves the prediction by':58} {((ours - plain).abs().max() / plain.abs().max()).item():.1e}")
compare("ours in peft, as ours in diffusers", with_peft(export("lora", "peft")), ours)
compare("ours for ComfyUI in diffusers, as ours", with_file(export("lora", "comfyui") / "comfyui_lora.safetensors"), ours)
raw = load_file(folder / "lora_comfyui/comfyui_lora.safetensors")
stripped = folder / "stripped.safetensors"
save_file(raw, stripped)
compare("the same without header, at scale 1 as wrappers take it", with_file(stripped), ours)
for stage in ["theirs", "theirs_comfyui", "theirs_diffusers"]:
    compare(f"{stage} through pipe to diffusers, as in peft", with_file(export(stage) / "pytorch_lora_weights.safetensors"),
            theirs)

# The weighted sum, against peft on both adapters.
both = PeftModel.from_pretrained(transformer(), str(folder / "lora_peft"), adapter_name="one")
both.load_adapter(str(folder / "theirs/peft"), adapter_name="two")
both.add_weighted_adapter(["one", "two"], [0.5, 2.0], "sum", combination_type="cat")
both.set_adapter("sum")
wanted = predict(both)
compare("0.5 ours + 2 theirs by lora_merge, as by peft", with_file(export("both") / "pytorch_lora_weights.safetensors"), wanted)
merged = transformer()
[weights] = export("merged").rglob("diffusion_pytorch_model.safetensors")
merged.load_state_dict(load_file(weights))
compare("merged into the model by lora_merge, as by peft", predict(merged), wanted)
sys.exit(0 if all(good) else 1)
