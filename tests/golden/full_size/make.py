"""Writes models of full size with random bf16 weights, and what they compute in f32.

Usage: make.py FOLDER [PART...], by default all parts, which are the keys of `PARTS` below. Needs torch,
diffusers and transformers, and for the largest parts 12 GB of memory and 4 GB of disk. The tests
`the_full_size_*` read FOLDER from `PIPE_FULL_SIZE_DIR`. The configurations are those of `../shapes/`; CogVideoX and
T5-XXL are of full width with one block, as all their blocks are alike.
"""
import json
import pathlib
import sys

import torch
from diffusers import (AutoencoderKLCogVideoX, AutoencoderKLLTXVideo, CogVideoXTransformer3DModel,
                       LTXVideoTransformer3DModel)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

HERE = pathlib.Path(__file__).parent


def random_model(folder, part, model_class, **changed):
    config = json.loads((HERE.parent / f"shapes/{part}.txt").read_text().split("\n")[0]) | changed
    torch.manual_seed(3)
    if model_class is T5EncoderModel:
        model = model_class(T5Config(**config))
    else:
        with torch.device("meta"):
            model = model_class(**config)
        model = model.to_empty(device="cpu")
    model = model.to(torch.bfloat16).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        fan_in = tensor[0].numel() if tensor.ndim else 1
        scale = 0.02 if tensor.ndim < 2 else fan_in ** -0.5
        tensor.normal_(0.0, scale).add_(1.0 if "norm" in name and name.endswith("weight") and tensor.ndim == 1 else 0.0)
        if "SelfAttention.q" in name:
            tensor.mul_(0.125)  # T5 does not divide scores by the root of a head's width.
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


def cogvideox_block(folder, part):
    folder = folder / "transformer"
    model = random_model(folder, part, CogVideoXTransformer3DModel, num_layers=1)
    frames, height, width = 4, 20, 28
    rotary = get_3d_rotary_pos_embed(64, None, (height // 2, width // 2), frames // 2, grid_type="slice", max_size=(150, 150))
    hidden = torch.randn(2, frames, 32, height, width, requires_grad=True)
    text, timestep, ofs = torch.randn(2, 226, 4096), torch.tensor([17, 803]), torch.full((1,), 2.0)
    out = model(hidden, text, timestep, ofs=ofs, image_rotary_emb=rotary, return_dict=False)[0]
    grad_out = torch.randn_like(out)
    (grad_hidden,) = torch.autograd.grad(out, hidden, grad_out)
    save(folder, dict(hidden=hidden, text=text, timestep=timestep.float(), ofs=ofs, out=out, grad_out=grad_out,
                      grad_hidden=grad_hidden))


def t5_layer(folder, part):
    # What makes it the folder of a model.
    for file in ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")
    folder = folder / "text_encoder"
    model = random_model(folder, part, T5EncoderModel, num_layers=1)
    ids, mask = torch.randint(0, 32128, (2, 226)), torch.ones(2, 226, dtype=torch.int64)
    mask[1, 40:] = 0
    with torch.no_grad():
        save(folder, dict(ids=ids, mask=mask, hidden=model(ids)[0], hidden_masked=model(ids, attention_mask=mask)[0]))


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


PARTS = {"ltx_video": transformer, "cogvideox_15": cogvideox_block, "t5_xxl": t5_layer, "cogvideox_vae": vae, "ltx_video_vae_090": vae, "ltx_video_vae_091": vae,
         "ltx_video_vae_095": vae}
for name in sys.argv[2:] or PARTS:
    PARTS[name](pathlib.Path(sys.argv[1]) / name, name)
