"""Numbers of torch.Generator("cpu"), for src/rng.rs. Writes expected.safetensors beside itself.

Made with torch 2.15.0 on x86-64 with AVX2.
"""
from pathlib import Path

import torch
from safetensors.torch import save_file


def generator(seed):
    return torch.Generator("cpu").manual_seed(seed)


tensors = {}
for seed in (0, 42, 1234, 2**40 + 5):
    for n in (1, 5, 15, 16, 17, 31, 1000):
        tensors[f"normal.{seed}.{n}"] = torch.randn(n, generator=generator(seed))
    for n in (5, 16, 17, 47):
        tensors[f"normal_bf16.{seed}.{n}"] = torch.randn(n, generator=generator(seed), dtype=torch.bfloat16)
    tensors[f"uniform.{seed}.9"] = torch.rand(9, generator=generator(seed))

g = generator(5)
sequence = [
    torch.randn(3, generator=g),
    torch.randint(1000, (7,), generator=g),
    torch.randint(2**40, (3,), generator=g),
    torch.randn(33, generator=g),
    torch.randperm(11, generator=g),
    torch.randn(4, generator=g),
    torch.rand(2, generator=g),
]
tensors |= {f"sequence.{i}": t for i, t in enumerate(sequence)}
save_file(tensors, Path(__file__).parent / "expected.safetensors")
