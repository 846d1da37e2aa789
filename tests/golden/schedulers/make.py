"""Schedules and sampling traces of diffusers, for src/models/schedulers. Writes expected.safetensors.

Latents are [B, F, C, H, W], as diffusers keeps them. Made with diffusers 0.42.1, torch 2.15.0.
"""
from pathlib import Path

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from safetensors.torch import save_file

tensors = {}
for shift in (1.0, 3.0):
    config = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
                  rescale_betas_zero_snr=True, snr_shift_scale=shift, timestep_spacing="trailing",
                  set_alpha_to_one=True, clip_sample=False)
    for name, scheduler in (("ddim", CogVideoXDDIMScheduler(**config)), ("dpm", CogVideoXDPMScheduler(**config))):
        for steps in (1, 5, 7, 10, 50):
            key = f"{name}.{shift}.{steps}"
            scheduler.set_timesteps(steps)
            generator = torch.Generator("cpu").manual_seed(3)
            x = torch.randn(1, 2, 3, 2, 4, generator=torch.Generator("cpu").manual_seed(steps))
            tensors[f"{key}.timesteps"], tensors[f"{key}.x0"], old = scheduler.timesteps.float(), x, None
            for i, t in enumerate(scheduler.timesteps):
                prediction = torch.tanh(x * 0.7 + 0.1)
                if name == "ddim":
                    x = scheduler.step(prediction, t, x, return_dict=False)[0]
                else:
                    back = scheduler.timesteps[i - 1] if i > 0 else None
                    x, old = scheduler.step(prediction, old, t, back, x, generator=generator, return_dict=False)
                # Of many steps, what is there halfway and at the end; so the file stays small.
                if steps < 10 or (i + 1) % (steps // 2) == 0:
                    tensors[f"{key}.x{i + 1}"] = x
    t = torch.tensor([0, 17, 803, 999])
    clean, noise = (torch.randn(4, 2, 3, 2, 2, generator=torch.Generator("cpu").manual_seed(s)) for s in (1, 2))
    tensors |= {f"noisy.{shift}": scheduler.add_noise(clean, noise, t), f"target.{shift}": scheduler.get_velocity(clean, noise, t)}
save_file({k: v.float().contiguous() for k, v in tensors.items()}, Path(__file__).parent / "expected.safetensors")
