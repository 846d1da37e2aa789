"""Reference values of LoRA training and image-to-video sampling on tiny random models.

Usage: python make.py        (writes 15, 10, 15_batches and 10_batches.safetensors beside itself)
Made with diffusers 0.42.1, peft 0.21 and torch 2.11 on the CPU, in f32. Weights are rounded to f16
before anything is computed, so that they can be stored so.

Each file holds `weights.transformer.*`, `weights.vae.*`, and in its header the configurations of
transformer, VAE and scheduler.
- `lora.*`: a three-step trace with two samples a step: `init.*`, `final.*` (factors by module),
  clean latents `x0.N`, conditioning image `image.N` (frame 0 alone), `noise.N`, timesteps `t.N`,
  `loss.N`, `norm.N` (gradient norm before clipping)
- `sample.*`: `image` (bytes), and with seed 42 and four steps the latents (`ddim`, `dpm`, `guided`
  at scale 3) without padding frames, and the decoded `frames` of `ddim` in [0, 1]

The files of batches belong to the models of the same name. They hold three examples, clean latents
`clean.E` before padding and encodings of the image `pool.E`, and two steps of two batches that are
drawn from them with the seeds and in the order of `pipe`:
- per batch `timesteps.B`, `noisy.B`, `image.B` and `target.B`
- per step, with the model and its final adapter, the mean `loss.S` of its batches in the published form,
  the `norm.S` of its gradients by the factors, and the gradients `grad.S.*`
"""
import json, os
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
from diffusers import (AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler,
                       CogVideoXImageToVideoPipeline, CogVideoXTransformer3DModel)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from peft import LoraConfig, get_peft_model_state_dict

HEIGHT, WIDTH, FRAMES, TEXT = 16, 24, 9, 12
HERE = os.path.dirname(os.path.abspath(__file__))
# Of the batches: the run's seed, the streams of `pipe`, the scale of the image and the share without.
SEED, ORDER, BATCH, SCALE, DROPOUT = 42, 1, 2, 0.7, 0.4


def off_start(model, std):
    """Moves parameters off zeros and ones, which hide mistakes, and rounds them."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * std).copy_(p.half().float())
    return model.eval().requires_grad_(False)


def plain(config):
    return {k: v for k, v in config.items() if not k.startswith("_") or k == "_class_name"}


def generator(stream, index):
    """A generator per seed, stream and index, by SplitMix64."""
    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31
    return torch.Generator().manual_seed(mix(mix(mix(SEED) ^ stream) ^ index))


def chosen(batch):
    """Two of the three examples; every epoch has an order of its own and fills the last batch of the one before."""
    places = [2 * batch, 2 * batch + 1]
    return [torch.randperm(3, generator=generator(ORDER, place // 3)).tolist()[place % 3] for place in places]


def batches(scheduler, predict, params, newer):
    """Two steps of two batches; `predict` takes latents with the image, frames first, and timesteps."""
    clean = [torch.randn(3, 4, HEIGHT // 4, WIDTH // 4) for _ in range(3)]
    pools = [torch.randn(count, 4, HEIGHT // 4, WIDTH // 4) for count in (1, 4, 3)]
    out = {f"clean.{i}": x.permute(1, 0, 2, 3)[None] for i, x in enumerate(clean)}
    out |= {f"pool.{i}": x[:, :, None] for i, x in enumerate(pools)}
    swap = lambda x: x.permute(0, 2, 1, 3, 4)
    for step in range(2):
        losses = []
        for batch in (2 * step, 2 * step + 1):
            examples, g = chosen(batch), generator(BATCH, batch)
            x0 = torch.stack([clean[i] for i in examples])
            if newer:
                x0 = torch.cat([x0[:, :1], x0], 1)
            t = torch.randint(0, 1000, (2,), generator=g)
            choices = torch.rand(2, generator=g)
            kept = torch.rand(2, generator=g) >= DROPOUT
            noise = swap(torch.randn(swap(x0).shape, generator=g))
            image = torch.zeros_like(x0)
            for row, example in enumerate(examples):
                pool = pools[example]
                if kept[row]:
                    image[row, 0] = pool[int(choices[row] * len(pool))] * SCALE
            noisy = scheduler.add_noise(x0, noise, t)
            clean_again = scheduler.get_velocity(predict(torch.cat([noisy, image], 2), t), noisy, t)
            share = (1 - scheduler.alphas_cumprod[t]).view(-1, 1, 1, 1, 1)
            losses.append(((clean_again - x0) ** 2 / share).mean())
            # What diffusers calls velocity is the target when it gets clean latents and noise.
            target = scheduler.get_velocity(x0, noise, t)
            out |= {f"timesteps.{batch}": t, f"noisy.{batch}": swap(noisy), f"image.{batch}": swap(image)[:, :, :1],
                    f"target.{batch}": swap(target)}
            print(batch, examples, t.tolist(), kept.tolist())
        loss = sum(losses) / 2
        grads = torch.autograd.grad(loss, list(params.values()))
        out |= {f"loss.{step}": loss[None], f"norm.{step}": torch.cat([grad.flatten() for grad in grads]).norm()[None]}
        out |= {f"grad.{step}.{name}": grad for name, grad in zip(params, grads)}
    return out


def save(name, tensors, metadata=None):
    plain = {k: (v.float() if v.dtype == torch.float64 else v).detach().contiguous() for k, v in tensors.items()}
    save_file(plain, f"{HERE}/{name}.safetensors", metadata=metadata)


def make(name, newer):
    torch.manual_seed(5)
    extra = dict(patch_size_t=2, patch_bias=False, ofs_embed_dim=16, sample_height=20, sample_width=20,
                 sample_frames=17) if newer else dict(
        patch_bias=True, sample_height=HEIGHT // 4, sample_width=WIDTH // 4, sample_frames=FRAMES,
        use_learned_positional_embeddings=True)
    transformer = off_start(CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=8, out_channels=4, time_embed_dim=16,
        text_embed_dim=TEXT, num_layers=2, patch_size=2, max_text_seq_length=4, attention_bias=True,
        use_rotary_positional_embeddings=True, temporal_compression_ratio=4, **extra), 0.05)
    vae = off_start(AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3, up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(4, 4, 4), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4, sample_height=HEIGHT, sample_width=WIDTH, scaling_factor=0.7,
        invert_scale_latents=newer), 0.02)
    schedule = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                    prediction_type="v_prediction", rescale_betas_zero_snr=True,
                    snr_shift_scale=1.0 if newer else 3.0, timestep_spacing="trailing",
                    set_alpha_to_one=True, clip_sample=False)
    ddim, dpm = CogVideoXDDIMScheduler(**schedule), CogVideoXDPMScheduler(**schedule)
    out = {f"weights.transformer.{k}": v.half() for k, v in transformer.state_dict().items()
           if k != "patch_embed.pos_embedding"}
    out |= {k: v for k, v in [("weights.transformer.patch_embed.pos_embedding",
            transformer.state_dict().get("patch_embed.pos_embedding"))] if v is not None}
    out |= {f"weights.vae.{k}": v.half() for k, v in vae.state_dict().items()}
    configs = {"transformer": plain(dict(transformer.config)) | {"_class_name": "CogVideoXTransformer3DModel"},
               "vae": plain(dict(vae.config)), "scheduler": plain(dict(ddim.config)) | {"_class_name": "CogVideoXDDIMScheduler"}}

    text = torch.randn(1, 4, TEXT)
    negative = torch.randn(1, 4, TEXT)
    out |= {"text": text, "negative": negative}

    # Sampling, before there is an adapter.
    pipe = CogVideoXImageToVideoPipeline(None, None, vae, transformer, ddim)
    pipe.set_progress_bar_config(disable=True)
    pixels = (np.random.RandomState(5).rand(HEIGHT, WIDTH, 3) * 255).astype(np.uint8)
    out["sample.image"] = torch.from_numpy(pixels).long()
    padding = 1 if newer else 0

    def sample(scheduler, output, guidance=1.0):
        pipe.scheduler = scheduler
        return pipe(image=Image.fromarray(pixels), prompt_embeds=text, negative_prompt_embeds=negative,
                    height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=4,
                    guidance_scale=guidance, generator=torch.Generator("cpu").manual_seed(42),
                    output_type=output, return_dict=False)[0]

    with torch.no_grad():
        for key, scheduler, guidance in [("ddim", ddim, 1.0), ("dpm", dpm, 1.0), ("guided", ddim, 3.0)]:
            out[f"sample.{key}"] = sample(scheduler, "latent", guidance)[:, padding:].permute(0, 2, 1, 3, 4)
        out["sample.frames"] = sample(ddim, "pt").permute(0, 2, 1, 3, 4)

    # Training.
    frames = 4 if newer else 3
    h, w = HEIGHT // 4, WIDTH // 4
    if newer:
        rotary = get_3d_rotary_pos_embed(16, None, (h // 2, w // 2), (frames + 1) // 2, grid_type="slice", max_size=(10, 10))
    else:
        rotary = get_3d_rotary_pos_embed(16, ((0, 0), (h // 2, w // 2)), (h // 2, w // 2), frames)
    ofs = torch.full((1,), 2.0) if newer else None
    transformer.add_adapter(LoraConfig(r=3, lora_alpha=2, init_lora_weights=True,
                                       target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    out |= {f"lora.init.{k}": v.clone() for k, v in get_peft_model_state_dict(transformer).items()}
    params = [p for p in transformer.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.95), weight_decay=1e-2, eps=1e-8)
    for step in range(4):
        x0 = torch.randn(2, frames, 4, h, w)
        image = torch.zeros_like(x0)
        image[:, 0] = torch.randn(2, 4, h, w)
        noise, t = torch.randn_like(x0), torch.randint(0, 1000, (2,))
        noisy = dpm.add_noise(x0, noise, t)
        v = transformer(torch.cat([noisy, image], 2), text.expand(2, -1, -1), t, ofs=ofs,
                        image_rotary_emb=rotary, return_dict=False)[0]
        a = dpm.alphas_cumprod[t].view(-1, 1, 1, 1, 1)
        # The published form: clean latents from the prediction, weighted by 1 / (1 - a).
        loss = ((dpm.get_velocity(v, noisy, t) - x0) ** 2 / (1 - a)).mean()
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 0.05)
        adam.step()
        swap = lambda x: x.permute(0, 2, 1, 3, 4)
        out |= {f"lora.x0.{step}": swap(x0), f"lora.image.{step}": swap(image)[:, :, :1], f"lora.noise.{step}": swap(noise),
                f"lora.t.{step}": t, f"lora.loss.{step}": loss.detach()[None], f"lora.norm.{step}": norm[None]}
    out |= {f"lora.final.{k}": v for k, v in get_peft_model_state_dict(transformer).items()}
    save(name, out, {"config": json.dumps(configs)})

    def predict(x, t):
        return transformer(x, text.expand(2, -1, -1), t, ofs=ofs, image_rotary_emb=rotary, return_dict=False)[0]

    named = {k.replace(".default", ""): p for k, p in transformer.named_parameters() if p.requires_grad}
    save(f"{name}_batches", batches(dpm, predict, named, newer))


make("15", True)
make("10", False)
