"""The steps of benches/training.rs in PyTorch with diffusers and peft, for comparison.

Usage: python benches/training.py [THREADS]
"""
import statistics, sys, time
import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from peft import LoraConfig

torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
torch.manual_seed(1)
B = 4


def model():
    return CogVideoXTransformer3DModel(
        num_attention_heads=3, attention_head_dim=64, in_channels=16, out_channels=8, num_layers=6, patch_size=2,
        patch_size_t=2, patch_bias=False, time_embed_dim=192, ofs_embed_dim=192, text_embed_dim=64,
        max_text_seq_length=8, sample_frames=9, sample_height=64, sample_width=96, temporal_compression_ratio=4,
        attention_bias=True, use_rotary_positional_embeddings=True)


def measure(name, m):
    params = [p for p in m.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.95), weight_decay=1e-3)
    rotary = get_3d_rotary_pos_embed(64, None, (8, 8), 2, grid_type="slice", max_size=(32, 48))
    latents, target = torch.randn(B, 4, 16, 16, 16), torch.randn(B, 4, 8, 16, 16)
    text, t, ofs = torch.randn(B, 8, 64), torch.tensor([3, 420, 700, 999]), torch.full((1,), 2.0)
    grads, steps = [], []
    for step in range(18):
        start = time.perf_counter()
        out = m(latents, text, t, ofs=ofs, image_rotary_emb=rotary, return_dict=False)[0]
        loss = ((out - target) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        grad = time.perf_counter() - start
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        loss.item()
        if step >= 3:
            grads.append(grad * 1e3)
            steps.append((time.perf_counter() - start) * 1e3 - grad * 1e3)
    g, o = statistics.median(grads), statistics.median(steps)
    print(f"{name:18} {g + o:6.1f} ms/step: gradients {g:.1f}, optimizer {o:.1f}")


adapted = model().requires_grad_(False)
adapted.add_adapter(LoraConfig(r=16, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
measure("adapter", adapted)
measure("all parameters", model())
