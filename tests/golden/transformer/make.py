"""Writes 15.safetensors and 10.safetensors: tiny CogVideoX transformers and what they compute.

Usage: make.py [FOLDER]. Needs torch, diffusers and safetensors; see README.md for versions.
Weights are rounded to f16, stored so, and computed with in f32.
"""
import json
import pathlib
import sys

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import get_resize_crop_region_for_grid
from safetensors.torch import save_file

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
HEADS, HEAD_DIM, TEXT, TEXT_LEN, CHANNELS = 2, 16, 12, 5, 4


def make(name, version, rows, columns, frames, **kwargs):
    torch.manual_seed(7)
    model = CogVideoXTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=HEAD_DIM, in_channels=2 * CHANNELS, out_channels=CHANNELS,
        time_embed_dim=8, text_embed_dim=TEXT, num_layers=2, max_text_seq_length=TEXT_LEN,
        use_rotary_positional_embeddings=True, **kwargs).eval().requires_grad_(False)
    for tensor in [*model.parameters(), *model.buffers()]:
        # Zeros and ones hide mistakes; f16 keeps the file small.
        tensor.copy_((tensor + 0.1 * torch.randn_like(tensor)).half().float())

    latents = torch.randn(2, CHANNELS, frames, rows, columns, requires_grad=True)
    image = torch.randn(2, CHANNELS, 1, rows, columns)
    text = torch.randn(2, TEXT_LEN, TEXT)
    timesteps = torch.tensor([17, 803])
    patch = model.config.patch_size
    if version == 15:
        cos_sin = get_3d_rotary_pos_embed(
            HEAD_DIM, None, (rows // patch, columns // patch), (frames + 1) // 2, grid_type="slice",
            max_size=(model.config.sample_height // patch, model.config.sample_width // patch))
    else:
        size = (rows // patch, columns // patch)
        crop = get_resize_crop_region_for_grid(
            size, model.config.sample_width // patch, model.config.sample_height // patch)
        cos_sin = get_3d_rotary_pos_embed(HEAD_DIM, crop, size, frames)

    seen = {}
    keep = lambda key: lambda module, args, output: seen.__setitem__(key, output)
    hooks = [model.time_embedding.register_forward_hook(keep("time")),
             model.patch_embed.register_forward_hook(keep("tokens")),
             model.transformer_blocks[0].register_forward_hook(keep("block"))]
    if version == 15:
        hooks.append(model.ofs_embedding.register_forward_hook(keep("ofs")))
    padded = torch.cat([image, torch.zeros(2, CHANNELS, frames - 1, rows, columns)], 2)
    hidden = torch.cat([latents, padded], 1).permute(0, 2, 1, 3, 4)
    out = model(hidden, text, timesteps, ofs=torch.full((1,), 2.0) if version == 15 else None,
                image_rotary_emb=cos_sin, return_dict=False)[0].permute(0, 2, 1, 3, 4)
    upstream = torch.randn_like(out)
    (grad,) = torch.autograd.grad(out, latents, upstream)
    video, words = seen["block"]
    save_file({f"weights.{key}": value.half().contiguous() for key, value in model.state_dict().items()} | {
        key: value.detach().contiguous() for key, value in {
            "latents": latents, "image": image, "text": text, "timesteps": timesteps.float(),
            "time": seen["time"] + seen.get("ofs", 0), "tokens": seen["tokens"],
            "block": torch.cat([words, video], 1), "out": out, "grad_out": upstream, "grad_latents": grad}.items()},
        folder / f"{name}.safetensors", metadata={"config": json.dumps(dict(model.config))})


make("15", 15, 4, 6, 4, patch_size_t=2, patch_bias=False, ofs_embed_dim=8, sample_height=12, sample_width=12)
make("10", 10, 6, 4, 3, patch_bias=True, sample_height=6, sample_width=4, sample_frames=9,
     use_learned_positional_embeddings=True)
# Fewer frames than trained: the table of positions is computed.
make("10_short", 10, 6, 4, 2, patch_bias=True, sample_height=6, sample_width=4, sample_frames=9,
     use_learned_positional_embeddings=True)
# No table, and a picture of another aspect than the trained one: fractional rotations.
make("10_wide", 10, 4, 8, 2, patch_bias=False, sample_height=12, sample_width=10, sample_frames=9)
