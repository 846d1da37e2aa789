"""Predictions of peft with adapters of its own, on the tiny transformers of the folders beside this one.

Usage: make.py [FOLDER], which writes `cogvideox.safetensors` and `ltx_video.safetensors`. Made with diffusers
0.42.1, peft 0.21 and torch on the CPU, in f32. Factors are rounded to f16, stored so, and computed with in f32.

For each case `<case>.factors.*`, named as peft saves them, and `<case>.out`, the prediction for the inputs of
`transformer/15` or `ltx_video/transformer`; the header holds each case's `adapter_config.json`:

- `plain`: one rank and alpha
- `rslora`: the branch is scaled by alpha over the root of the rank
- `patterns`: ranks and alphas of some modules by name, end of name and regular expression
- `patterns_rslora`: both
"""
import json
import pathlib
import sys
import tempfile

import torch
from diffusers import CogVideoXTransformer3DModel, LTXVideoTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else here)
PATTERNS = {"rank_pattern": {r".*\.1\..*to_q": 5, "to_v": 2}, "alpha_pattern": {"attn1.to_q": 2.5, "net.2": 1.0}}
CASES = {"plain": {}, "rslora": {"use_rslora": True}, "patterns": PATTERNS,
         "patterns_rslora": PATTERNS | {"use_rslora": True}}


def read(name):
    with safe_open(here.parent / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}
        config = json.loads(file.metadata()["config"])
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    return {key: value for key, value in config.items() if not key.startswith("_")}, weights, tensors


def cogvideox(model, tensors):
    """As `transformer/make.py` predicts."""
    latents, image, config = tensors["latents"], tensors["image"], model.config
    batch, channels, frames, rows, columns = latents.shape
    rotary = get_3d_rotary_pos_embed(
        config.attention_head_dim, None, (rows // 2, columns // 2), (frames + 1) // 2, grid_type="slice",
        max_size=(config.sample_height // 2, config.sample_width // 2))
    padded = torch.cat([image, torch.zeros(batch, channels, frames - 1, rows, columns)], 2)
    hidden = torch.cat([latents, padded], 1).permute(0, 2, 1, 3, 4)
    out = model(hidden, tensors["text"], tensors["timesteps"], ofs=torch.full((1,), 2.0), image_rotary_emb=rotary,
                return_dict=False)[0]
    return out.permute(0, 2, 1, 3, 4)


def ltx_video(model, tensors):
    """As `ltx_video/make.py` predicts."""
    latents, text = tensors["latents"], tensors["text"]
    frames, rows, columns = latents.shape[2:]
    out = model(hidden_states=latents.permute(0, 2, 3, 4, 1).flatten(1, 3), encoder_hidden_states=text,
                timestep=tensors["timesteps"].repeat_interleave(rows * columns, dim=1),
                encoder_attention_mask=torch.ones(text.shape[:2]), num_frames=frames, height=rows, width=columns,
                rope_interpolation_scale=(8 / 25, 32, 32), return_dict=False)[0]
    return out.unflatten(1, (frames, rows, columns)).permute(0, 4, 1, 2, 3)


def make(name, fixture, model_class, predict, targets):
    config, weights, tensors = read(fixture)
    out, configs = {}, {}
    for case, settings in CASES.items():
        model = model_class(**config).eval()
        model.load_state_dict(weights)
        with torch.no_grad():
            far = (predict(model, tensors) - tensors["out"]).abs().max().item()
        assert far < 1e-5, f"not the model of {fixture}: {far}"
        made = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules=targets, **settings))
        torch.manual_seed(1)
        with torch.no_grad():
            for key, value in made.named_parameters():
                if "lora_" in key:
                    value.copy_((0.1 * torch.randn_like(value)).half())
            out[f"{case}.out"] = predict(made, tensors)
        factors = get_peft_model_state_dict(made)
        out |= {f"{case}.factors.{key}": value.half() for key, value in factors.items()}
        with tempfile.TemporaryDirectory() as saved:
            made.peft_config["default"].save_pretrained(saved)
            configs[case] = json.loads((pathlib.Path(saved) / "adapter_config.json").read_text())
        configs[case]["target_modules"].sort()
    save_file({key: value.detach().contiguous() for key, value in out.items()}, folder / f"{name}.safetensors",
              {"config": json.dumps(configs)})


make("cogvideox", "transformer/15", CogVideoXTransformer3DModel, cogvideox, ["to_q", "to_v", "ff.net.2", "proj_out"])
make("ltx_video", "ltx_video/transformer", LTXVideoTransformer3DModel, ltx_video, ["to_q", "to_v", "ff.net.2", "proj_in"])
