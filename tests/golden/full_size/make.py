"""Writes an LTX-Video transformer of full size with random bf16 weights, and what it computes in f32.

Usage: make.py FOLDER. Needs torch and diffusers, 12 GB of memory and 4 GB of disk. The test
`the_full_size_transformer_agrees` reads FOLDER from `PIPE_FULL_SIZE_DIR`.
"""
import pathlib
import sys

import torch
from diffusers import LTXVideoTransformer3DModel
from safetensors.torch import save_file

folder = pathlib.Path(sys.argv[1]) / "transformer"
torch.manual_seed(3)
with torch.device("meta"):
    model = LTXVideoTransformer3DModel()
model = model.to_empty(device="cpu").to(torch.bfloat16).eval().requires_grad_(False)
for name, tensor in model.named_parameters():
    scale = 0.02 if tensor.ndim < 2 else tensor.shape[1] ** -0.5
    tensor.normal_(0.0, scale).add_(1.0 if "norm_" in name else 0.0)
model.save_pretrained(folder, max_shard_size="20GB")

model = model.to(torch.float32)
grid = (2, 3, 4)
hidden = torch.randn(1, 24, 128, requires_grad=True)
text, mask = torch.randn(1, 8, 4096), torch.tensor([[1.0] * 5 + [0.0] * 3])
timestep = torch.tensor([0.0] * 12 + [731.0] * 12)[None]
out = model(hidden_states=hidden, encoder_hidden_states=text, timestep=timestep, encoder_attention_mask=mask,
            num_frames=grid[0], height=grid[1], width=grid[2], rope_interpolation_scale=(8 / 25, 32, 32),
            return_dict=False)[0]
grad_out = torch.randn_like(out)
(grad_hidden,) = torch.autograd.grad(out, hidden, grad_out)
save_file(dict(hidden=hidden.detach(), text=text, mask=mask, timestep=timestep, grid=torch.tensor(grid),
               out=out.detach(), grad_out=grad_out, grad_hidden=grad_hidden), folder / "expect.safetensors")
print(out.abs().max(), grad_hidden.abs().max())
