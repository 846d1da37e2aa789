"""Values that both sides make alike; see hashed.rs, whose rules these are."""
import math
import torch

MASK = 0xFFFFFFFF
CHUNK = 1 << 26


def seed(name):
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & MASK
    return value


def values(name, shape, bound, offset, device):
    """f32; the integers are 64 bits wide, since there is no unsigned type of 32 bits to multiply."""
    length, parts = math.prod(shape), []
    for start in range(0, length, CHUNK):
        x = torch.arange(start, min(start + CHUNK, length), device=device, dtype=torch.int64)
        x.mul_(0x9E3779B9).bitwise_and_(MASK).bitwise_xor_(seed(name))
        for multiplier in (0x7FEB352D, 0x846CA68B):
            x = x.bitwise_xor_(x >> 16).mul_(multiplier).bitwise_and_(MASK)
        x = x.bitwise_xor_(x >> 15) >> 8
        parts.append((x.float() / (1 << 23) - 1) * bound + offset)
    return torch.cat(parts).reshape(shape)


def tensor(name, shape, device):
    return values("input." + name, shape, math.sqrt(3), 0.0, device)


def ids(name, length, vocabulary, device):
    return (values("input." + name, [length], 0.5, 0.5, device).double() * vocabulary).long()


def limits(name, shape):
    matrix = float(torch.tensor(math.sqrt(3 / math.prod(shape[1:])), dtype=torch.float32)) if len(shape) > 1 else 0.0
    if name.endswith("latents_mean"):
        return 0.0, 0.0
    if name.endswith("latents_std"):
        return 0.0, 1.0
    if name.endswith(("SelfAttention.q.weight", "lora_B.weight")):
        return matrix * 0.125, 0.0
    if name.endswith(".weight"):
        return (matrix, 0.0) if len(shape) > 1 else (0.1, 1.0)
    return 0.05, 0.0


@torch.no_grad()
def fill(model):
    """Gives every parameter and buffer its values, by published name."""
    if any(param.is_meta for param in model.parameters()):
        return model
    state = model.state_dict()
    for name, param in [*model.named_parameters(), *model.named_buffers()]:
        if name in state:
            shape = list(param.shape)
            param.copy_(values(name, shape, *limits(name, shape), param.device))
    return model
