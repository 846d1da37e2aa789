"""Writes four_levels.safetensors and three_levels.safetensors: tiny CogVideoX VAEs and what they compute.

Usage: make.py [FOLDER]. Needs torch, diffusers and safetensors; see README.md for versions.
Weights and videos are rounded to f16, stored so, and computed with in f32.
"""
import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import save_file

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)


def make(name, channels, layers, latents, sample, size, tiled):
    torch.manual_seed(11)
    vae = AutoencoderKLCogVideoX(
        block_out_channels=channels, layers_per_block=layers, latent_channels=latents, norm_num_groups=2,
        down_block_types=("CogVideoXDownBlock3D",) * len(channels), up_block_types=("CogVideoXUpBlock3D",) * len(channels),
        sample_height=sample[0], sample_width=sample[1], scaling_factor=0.7, invert_scale_latents=True).eval()
    vae.requires_grad_(False)
    for tensor in vae.parameters():
        tensor.copy_((tensor + 0.05 * torch.randn_like(tensor)).half().float())
    video = (torch.rand(1, 3, 17, *size) * 2 - 1).half().float()
    result = {"video": video}
    for frames in (1, 9, 17):
        posterior = vae.encode(video[:, :, :frames]).latent_dist
        result |= {f"mean.{frames}": posterior.mean, f"logvar.{frames}": posterior.logvar}
    for frames in (1, 5):
        result[f"decoded.{frames}"] = vae.decode(result["mean.17"][:, :, :frames]).sample
    # The gradient of half the sum of squared pixels with respect to latents, through two chunks.
    latents = result["mean.17"].clone().requires_grad_(True)
    pixels = vae.decode(latents).sample
    result["grad_latents"] = torch.autograd.grad(pixels, latents, pixels.detach())[0]
    if tiled:
        # The trained size is one whose tiles have whole latents: 24 x 20 pixels, the next after 20 and 16.
        vae.enable_tiling()
        large = (torch.rand(1, 3, 5, 36, 36) * 2 - 1).half().float()
        mean = vae.encode(large).latent_dist.mean
        result |= {"tiled.video": large, "tiled.mean": mean, "tiled.decoded": vae.decode(mean).sample[:, :, :1]}
    halves = {"video", "tiled.video"}
    save_file({f"weights.{key}": value.half().contiguous() for key, value in vae.state_dict().items()} | {
        key: (value.half() if key in halves else value).contiguous() for key, value in result.items()},
        folder / f"{name}.safetensors", metadata={"config": json.dumps(dict(vae.config))})


make("four_levels", (4, 4, 8, 8), 1, 4, (32, 32), (16, 8), False)
make("three_levels", (4, 4, 8), 1, 4, (48, 40), (8, 16), True)
