"""Writes models of full size with random bf16 weights, and what they compute in f32.

Usage: make.py FOLDER [PART...], by default all parts, which are the keys of `PARTS` below. Needs torch and
diffusers, and for the largest parts 12 GB of memory and 4 GB of disk. The tests `the_full_size_*` read FOLDER
from `PIPE_FULL_SIZE_DIR`. The configurations are those of `../shapes/`.
"""
import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent


def random_model(folder, part, model_class):
    config = json.loads((HERE.parent / f"shapes/{part}.txt").read_text().split("\n")[0])
    torch.manual_seed(3)
    with torch.device("meta"):
        model = model_class(**config)
    model = model.to_empty(device="cpu").to(torch.bfloat16).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        fan_in = tensor[0].numel() if tensor.ndim else 1
        scale = 0.02 if tensor.ndim < 2 else fan_in ** -0.5
        tensor.normal_(0.0, scale).add_(1.0 if "norm" in name and name.endswith("weight") and tensor.ndim == 1 else 0.0)
        if "per_channel_scale" in name:
            tensor.zero_()  # The share of noise, which is random in the reference's decoder.
    for name, tensor in model.named_buffers():
        tensor.copy_({"latents_mean": lambda: torch.randn(tensor.shape) * 0.1, "latents_std": lambda: torch.rand(tensor.shape) + 0.5,
                      "decoder.timestep_scale_multiplier": lambda: torch.tensor(1000.0)}[name]())
    model.save_pretrained(folder, max_shard_size="20GB")
    return model.to(torch.float32)


def save(folder, tensors):
    save_file({key: value.detach().contiguous() for key, value in tensors.items()}, folder / "expect.safetensors")
    print(folder, {key: f"{value.abs().max():.2e}" for key, value in tensors.items()})


def transformer(folder, part):
    folder = folder / "transformer"
    model = random_model(folder, part, LTXVideoTransformer3DModel)
    grid = (2, 3, 4)
    hidden = torch.randn(1, 24, 128, requires_grad=True)
    text, mask = torch.randn(1, 8, 4096), torch.tensor([[1.0] * 5 + [0.0] * 3])
    timestep = torch.tensor([0.0] * 12 + [731.0] * 12)[None]
    out = model(hidden_states=hidden, encoder_hidden_states=text, timestep=timestep, encoder_attention_mask=mask,
                num_frames=grid[0], height=grid[1], width=grid[2], rope_interpolation_scale=(8 / 25, 32, 32),
                return_dict=False)[0]
    grad_out = torch.randn_like(out)
    (grad_hidden,) = torch.autograd.grad(out, hidden, grad_out)
    save(folder, dict(hidden=hidden, text=text, mask=mask, timestep=timestep, grid=torch.tensor(grid), out=out,
                      grad_out=grad_out, grad_hidden=grad_hidden))


def vae(folder, part):
    folder = folder / "vae"
    is_ltx = part.startswith("ltx")
    model = random_model(folder, part, AutoencoderKLLTXVideo if is_ltx else AutoencoderKLCogVideoX)
    video = torch.rand(1, 3, 9, 64, 96) * 2 - 1
    has_time = is_ltx and model.config.timestep_conditioning
    with torch.no_grad():
        posterior = model.encode(video).latent_dist
        decoded = model.decode(posterior.mean, torch.tensor([0.05])) if has_time else model.decode(posterior.mean)
        image = model.encode(video[:, :, :1]).latent_dist
    statistics = dict(latents_mean=model.latents_mean, latents_std=model.latents_std) if is_ltx else {}
    save(folder, dict(video=video, mean=posterior.mean, logvar=posterior.logvar, decoded=decoded.sample,
                      image_mean=image.mean) | statistics)


PARTS = {"ltx_video": transformer, "cogvideox_vae": vae, "ltx_video_vae_090": vae, "ltx_video_vae_091": vae,
         "ltx_video_vae_095": vae}
for name in sys.argv[2:] or PARTS:
    PARTS[name](pathlib.Path(sys.argv[1]) / name, name)
