"""Reference values of LTX-Video on tiny random models; writes every file beside this one.

Usage: make.py [FOLDER]. Made with diffusers 0.42.1, peft 0.21 and torch on the CPU, in f32. Weights
and videos are rounded to f16, stored so, and computed with in f32. Headers hold `config`.

- `schedule`: `<kind>.<steps>.<positions>.timesteps`, and `.x` after all steps from noise of seed 3
  with the prediction `tanh(0.7 x + 0.1)`
- `transformer`: one timestep per latent frame; `tokens`, `time` (before the projection), `block`,
  `out`, and `grad_latents` for the upstream gradient `grad_out`; `masked`, the output where
  only the first three text tokens are seen; `slow`, the output at 12 frames per second
- `vae_090`, `vae_091`, `vae_095`: `mean` and `logvar` of `video`; `decoded` from `mean`
  (at timestep 0.05 where the decoder takes one); `sampled` with the noise of seed 9; `image_mean`
- `training`: a transformer and a VAE that takes a timestep, without noise in its blocks;
  `lora.*`, a trace of three steps as the published trainer makes them, its random numbers from
  the seeds 10, 11, 12: timesteps, unused draws, the share of first frames that are noised, noise;
  `sample.*`, runs of four steps with seed 42, plain, with guidance 3 by a shorter
  prompt, and at 12 frames per second (`slow`), and the left half of the last frame
- `condition`: a transformer and a VAE of the form of 0.9.5, and runs of the condition pipeline of
  four steps with seed 42 on 17 frames: `sample.plain`, `sample.guided`, `sample.slow` as above,
  `sample.weak` of strength 0.6, `sample.one` of one step, and `sample.last_frame`, left half, of the
  plain run;
  `timesteps.<steps>`, the linear-quadratic schedule
- `compression`: a transformer and a VAE that makes 4 frames and 16 pixels one, and runs of four steps with
  seed 42 on 9 frames: `sample.plain`, and `sample.condition` of the condition pipeline
- `prompt`: a text encoder for the tokenizer of `../t5`, and the runs `sample.plain` and `sample.guided`
  of the models of `condition` from the texts `prompt` and `negative` of the header on; `embeds.*`, what
  the pipeline encodes them to, without padding
"""
import json
import pathlib
import sys

import numpy as np
import torch
from diffusers import (AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXConditionPipeline,
                       LTXImageToVideoPipeline, LTXVideoTransformer3DModel)
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel, T5Tokenizer

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
PUBLISHED = dict(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
                 max_image_seq_len=4096, shift_terminal=0.1)
TEXT, CHANNELS = 12, 4


def off_start(model, std):
    """Moves tensors off zeros and ones, which hide mistakes, and rounds them."""
    model.eval().requires_grad_(False)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name != "decoder.timestep_scale_multiplier":
            tensor.copy_((tensor + std * torch.randn_like(tensor)).half().float())
    return model


def weights(model, prefix="weights."):
    return {prefix + key: value.half() for key, value in model.state_dict().items()}


def save(name, tensors, config):
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, folder / f"{name}.safetensors", metadata={"config": json.dumps(config)})


def plain(config, name=None):
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    return config | ({"_class_name": name} if name else {})


def shift(c, positions):
    slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
    return positions * slope + c.base_shift - slope * c.base_image_seq_len


def schedule():
    out = {}
    for name, change in [("published", {}), ("static", dict(use_dynamic_shifting=False, shift=3.0, shift_terminal=None)),
                         ("linear", dict(time_shift_type="linear"))]:
        for steps, positions in [(2, 12), (5, 660), (20, 660), (7, 5000)]:
            scheduler = FlowMatchEulerDiscreteScheduler(**PUBLISHED | change)
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift(scheduler.config, positions))
            key = f"{name}.{steps}.{positions}"
            out[f"{key}.timesteps"] = scheduler.timesteps
            x = torch.randn(1, 2, 3, 2, 2, generator=torch.Generator().manual_seed(3))
            for t in scheduler.timesteps:
                x = scheduler.step(torch.tanh(x * 0.7 + 0.1), t, x, return_dict=False)[0]
            out[f"{key}.x"] = x
    save("schedule", out, {})


def transformer_model(head_dim):
    return off_start(LTXVideoTransformer3DModel(
        in_channels=CHANNELS, out_channels=CHANNELS, num_attention_heads=2, attention_head_dim=head_dim,
        cross_attention_dim=2 * head_dim, num_layers=2, caption_channels=TEXT), 0.1)


def pack(x):
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def unpack(x, size):
    return x.unflatten(1, size).permute(0, 4, 1, 2, 3)


def per_token(per_frame, size):
    """`[B, F]` for the tokens of each frame."""
    return per_frame.repeat_interleave(size[1] * size[2], dim=1)


def predict(model, latents, text, mask, per_frame, frame_rate=25):
    size = latents.shape[2:]
    out = model(hidden_states=pack(latents), encoder_hidden_states=text, timestep=per_token(per_frame, size),
                encoder_attention_mask=mask, num_frames=size[0], height=size[1], width=size[2],
                rope_interpolation_scale=(8 / frame_rate, 32, 32), return_dict=False)[0]
    return unpack(out, size)


def transformer():
    torch.manual_seed(7)
    model = transformer_model(16)
    latents = torch.randn(2, CHANNELS, 3, 2, 4, requires_grad=True)
    text = torch.randn(2, 5, TEXT)
    timesteps = torch.tensor([[0.0, 803.5, 17.0], [0.0, 250.0, 999.0]])
    seen = {}
    keep = lambda key: lambda module, args, output: seen.__setitem__(key, output)
    model.proj_in.register_forward_hook(keep("tokens"))
    model.transformer_blocks[0].register_forward_hook(keep("block"))
    model.time_embed.register_forward_hook(lambda module, args, output: seen.__setitem__("time", output[1]))
    out = predict(model, latents, text, torch.ones(2, 5), timesteps)
    upstream = torch.randn_like(out)
    (grad,) = torch.autograd.grad(out, latents, upstream)
    tokens, block = seen["tokens"], seen["block"]
    # One row for each frame, from one row for each token.
    time = seen["time"].unflatten(0, (2, 3, 8))[:, :, 0]
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]] * 2)
    save("transformer", weights(model) | dict(
        latents=latents, text=text, timesteps=timesteps, tokens=tokens, time=time, block=block, out=out,
        masked=predict(model, latents, text, mask, timesteps), grad_out=upstream, grad_latents=grad,
        slow=predict(model, latents, text, torch.ones(2, 5), timesteps, 12)), plain(model.config))


VAES = {
    "vae_090": dict(
        block_out_channels=(4, 8, 8), down_block_types=("LTXVideoDownBlock3D",) * 3, layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False), downsample_type=("conv",) * 3,
        decoder_block_out_channels=(4, 8, 8), decoder_layers_per_block=(1, 2, 1, 1),
        decoder_spatio_temporal_scaling=(True, True, False), decoder_inject_noise=(False,) * 4,
        upsample_residual=(False,) * 3, upsample_factor=(1,) * 3),
    "vae_091": dict(
        block_out_channels=(4, 8), down_block_types=("LTXVideoDownBlock3D",) * 2, layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, False), downsample_type=("conv",) * 2,
        decoder_block_out_channels=(8,), decoder_layers_per_block=(2, 1), decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(True, False), upsample_residual=(True,), upsample_factor=(2,), timestep_conditioning=True),
    "vae_095": dict(
        block_out_channels=(4, 8, 8, 16), down_block_types=("LTXVideo095DownBlock3D",) * 3,
        layers_per_block=(1, 1, 1, 1), spatio_temporal_scaling=(True,) * 3,
        downsample_type=("spatial", "temporal", "spatiotemporal"), spatial_compression_ratio=16,
        temporal_compression_ratio=4, decoder_block_out_channels=(8,), decoder_layers_per_block=(1, 1),
        decoder_spatio_temporal_scaling=(True,), decoder_inject_noise=(False,) * 2, upsample_residual=(True,),
        upsample_factor=(2,), timestep_conditioning=True),
    # With the compression of the published ones.
    "training": dict(
        block_out_channels=(4, 4, 4), down_block_types=("LTXVideoDownBlock3D",) * 3, layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True,) * 3, downsample_type=("conv",) * 3, decoder_block_out_channels=(4, 4, 4),
        decoder_layers_per_block=(1, 1, 1, 1), decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(False,) * 4, upsample_residual=(False,) * 3, upsample_factor=(1,) * 3,
        timestep_conditioning=True),
    "condition": dict(
        block_out_channels=(4, 4, 8, 8, 8), down_block_types=("LTXVideo095DownBlock3D",) * 4,
        layers_per_block=(1,) * 5, spatio_temporal_scaling=(True,) * 4,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"), spatial_compression_ratio=32,
        temporal_compression_ratio=8,
        decoder_block_out_channels=(4, 8, 16), decoder_layers_per_block=(1, 1, 1, 1),
        decoder_spatio_temporal_scaling=(True,) * 3, decoder_inject_noise=(False,) * 4, upsample_residual=(False, True, True),
        upsample_factor=(2,) * 3, timestep_conditioning=True),
}


def vae_model(name):
    vae = off_start(AutoencoderKLLTXVideo(latent_channels=CHANNELS, **VAES[name]), 0.05)
    vae.latents_std.copy_((torch.rand(CHANNELS) + 0.5).half().float())
    return vae


def vae(name):
    torch.manual_seed(11)
    model = vae_model(name)
    video = (torch.rand(1, 3, 5, 16, 16) * 2 - 1).half().float()
    posterior = model.encode(video).latent_dist
    mean = posterior.mean
    temb = torch.tensor([0.05]) if model.config.timestep_conditioning else None
    noisy = model.config.decoder_inject_noise[0]
    scales = [p for n, p in model.named_parameters() if "per_channel_scale" in n]
    out = weights(model) | dict(video=video.half(), mean=mean, logvar=posterior.logvar,
                                image_mean=model.encode(video[:, :, :1]).latent_dist.mean)
    if temb is not None:
        torch.manual_seed(9)
        mixed = (1 - 0.025) * mean + 0.025 * torch.randn(mean.shape)
        out["sampled"] = model.decode(mixed, temb).sample
    if noisy:
        # Without noise, as a decoder whose scales are zero.
        for scale in scales:
            scale.zero_()
    out["decoded"] = model.decode(mean, temb).sample
    latents = mean.clone().requires_grad_(True)
    pixels = model.decode(latents, temb).sample
    out["grad_latents"] = torch.autograd.grad(pixels, latents, pixels.detach())[0]
    save(name, out, plain(model.config))


def lora_trace(model, text, out):
    frames, h, w = 3, 2, 3
    model.add_adapter(LoraConfig(r=3, lora_alpha=2, init_lora_weights=True, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    out |= {f"lora.init.{k}": v.clone() for k, v in get_peft_model_state_dict(model).items()}
    params = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0, eps=1e-8)
    mu = 0.95 + (frames * h * w - 1024) * (2.05 - 0.95) / (4096 - 1024)
    clean = torch.randn(2, CHANNELS, frames, h, w)
    out["lora.clean"] = clean
    for step in range(3):
        g = torch.Generator().manual_seed(10 + step)
        sigma = torch.sigmoid(torch.randn(2, generator=g) + mu)
        torch.rand(2, generator=g)
        given = torch.rand(2, generator=g) >= 0.4
        noise = torch.randn(clean.shape, generator=g)
        first = torch.zeros(2, 1, frames, 1, 1, dtype=torch.bool)
        first[:, :, 0] = given[:, None, None, None]
        s = sigma[:, None, None, None, None]
        noisy = torch.where(first, clean, (1 - s) * clean + s * noise)
        timesteps = torch.where(first[:, 0, :, 0, 0], 0.0, torch.round(sigma * 1000)[:, None])
        prediction = predict(model, noisy, text.expand(2, -1, -1), torch.ones(2, text.shape[1]), timesteps)
        mask = (~first).float()
        loss = ((prediction - (noise - clean)) ** 2 * mask / mask.mean()).mean()
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 0.5)
        adam.step()
        out |= {f"lora.timesteps.{step}": timesteps, f"lora.noisy.{step}": noisy, f"lora.loss.{step}": loss[None],
                f"lora.norm.{step}": norm[None]}
    out |= {f"lora.final.{k}": v for k, v in get_peft_model_state_dict(model).items()}


def sample(model, autoencoder, text, negative, out):
    scheduler = FlowMatchEulerDiscreteScheduler(**PUBLISHED)
    pipe = LTXImageToVideoPipeline(scheduler, autoencoder, None, None, model)
    pipe.set_progress_bar_config(disable=True)
    height, width, frames = 32, 64, 9
    pixels = (np.random.RandomState(5).rand(height, width, 3) * 255).astype(np.uint8)
    out["sample.image"] = torch.from_numpy(pixels).half()
    # Padded to one length; the negative prompt has fewer tokens.
    padded = torch.cat([negative, torch.randn(1, text.shape[1] - negative.shape[1], TEXT)], 1)
    mask = torch.ones(1, text.shape[1])
    negative_mask = mask.clone()
    negative_mask[:, negative.shape[1]:] = 0

    def run(output, guidance, frame_rate=25):
        return pipe(image=Image.fromarray(pixels), prompt_embeds=text, prompt_attention_mask=mask,
                    negative_prompt_embeds=padded, negative_prompt_attention_mask=negative_mask, height=height,
                    width=width, num_frames=frames, frame_rate=frame_rate, num_inference_steps=4, guidance_scale=guidance,
                    generator=torch.Generator("cpu").manual_seed(42), output_type=output, return_dict=False,
                    decode_timestep=0.05, decode_noise_scale=0.025)[0]

    for key, guidance, frame_rate in [("plain", 1.0, 25), ("guided", 3.0, 25), ("slow", 1.0, 12)]:
        out[f"sample.{key}"] = unpack(run("latent", guidance, frame_rate), (2, height // 32, width // 32))
    out["sample.last_frame"] = run("pt", 1.0).permute(0, 2, 1, 3, 4)[:, :, -1:, :, :32]


def training():
    torch.manual_seed(5)
    model = transformer_model(8)
    autoencoder = vae_model("training")
    text, negative = torch.randn(1, 4, TEXT), torch.randn(1, 2, TEXT)
    out = weights(model, "weights.transformer.") | weights(autoencoder, "weights.vae.") | {"text": text, "negative": negative}
    config = {"transformer": plain(model.config, "LTXVideoTransformer3DModel"), "vae": plain(autoencoder.config),
              "scheduler": plain(FlowMatchEulerDiscreteScheduler(**PUBLISHED).config, "FlowMatchEulerDiscreteScheduler")}
    with torch.no_grad():
        sample(model, autoencoder, text, negative, out)
    lora_trace(model, text, out)
    save("training", out, config)


def condition():
    torch.manual_seed(13)
    model = transformer_model(8)
    autoencoder = vae_model("condition")
    text, negative = torch.randn(1, 4, TEXT), torch.randn(1, 2, TEXT)
    out = weights(model, "weights.transformer.") | weights(autoencoder, "weights.vae.") | {"text": text, "negative": negative}
    scheduler = FlowMatchEulerDiscreteScheduler()
    config = {"transformer": plain(model.config, "LTXVideoTransformer3DModel"), "vae": plain(autoencoder.config),
              "scheduler": plain(scheduler.config, "FlowMatchEulerDiscreteScheduler")}
    pipe = LTXConditionPipeline(scheduler, autoencoder, None, None, model)
    pipe.set_progress_bar_config(disable=True)
    height, width, frames = 32, 64, 17
    pixels = (np.random.RandomState(5).rand(height, width, 3) * 255).astype(np.uint8)
    out["sample.image"] = torch.from_numpy(pixels).half()
    padded = torch.cat([negative, torch.randn(1, text.shape[1] - negative.shape[1], TEXT)], 1)
    mask = torch.ones(1, text.shape[1])
    negative_mask = mask.clone()
    negative_mask[:, negative.shape[1]:] = 0

    def run(output="latent", steps=4, guidance=1.0, strength=1.0, frame_rate=25):
        return pipe(image=Image.fromarray(pixels), strength=strength, prompt_embeds=text, prompt_attention_mask=mask,
                    negative_prompt_embeds=padded, negative_prompt_attention_mask=negative_mask, height=height,
                    width=width, num_frames=frames, frame_rate=frame_rate, num_inference_steps=steps, guidance_scale=guidance,
                    generator=torch.Generator("cpu").manual_seed(42), output_type=output, return_dict=False,
                    decode_timestep=0.05, decode_noise_scale=0.025)[0]

    for key, change in [("plain", {}), ("guided", dict(guidance=3.0)), ("weak", dict(strength=0.6)), ("one", dict(steps=1)),
                        ("slow", dict(frame_rate=12))]:
        out[f"sample.{key}"] = run(**change)
    out["sample.last_frame"] = run("pt").permute(0, 2, 1, 3, 4)[:, :, -1:, :, :32]
    for steps in (1, 2, 5, 50):
        out[f"timesteps.{steps}"] = linear_quadratic_schedule(steps) * 1000
    save("condition", out, config)
    prompt(model, autoencoder, scheduler, pixels)


def compression():
    """Positions are counted in frames and pixels, so they follow the compression of the VAE."""
    torch.manual_seed(19)
    model = transformer_model(8)
    autoencoder = vae_model("vae_095")
    text = torch.randn(1, 4, TEXT)
    out = weights(model, "weights.transformer.") | weights(autoencoder, "weights.vae.") | {"text": text}
    config = {"transformer": plain(model.config, "LTXVideoTransformer3DModel"), "vae": plain(autoencoder.config)}
    height, width, frames = 32, 64, 9
    pixels = (np.random.RandomState(5).rand(height, width, 3) * 255).astype(np.uint8)
    out["sample.image"] = torch.from_numpy(pixels).half()
    for key, pipeline, scheduler in [
            ("plain", LTXImageToVideoPipeline, FlowMatchEulerDiscreteScheduler(**PUBLISHED)),
            ("condition", LTXConditionPipeline, FlowMatchEulerDiscreteScheduler())]:
        pipe = pipeline(scheduler, autoencoder, None, None, model)
        pipe.set_progress_bar_config(disable=True)
        made = pipe(image=Image.fromarray(pixels), prompt_embeds=text, prompt_attention_mask=torch.ones(1, text.shape[1]),
                    height=height, width=width, num_frames=frames, num_inference_steps=4, guidance_scale=1.0,
                    generator=torch.Generator("cpu").manual_seed(42), output_type="latent", return_dict=False)[0]
        out[f"sample.{key}"] = unpack(made, (3, height // 16, width // 16)) if made.ndim == 3 else made
        config[f"scheduler.{key}"] = plain(scheduler.config, "FlowMatchEulerDiscreteScheduler")
    save("compression", out, config)


def prompt(model, autoencoder, scheduler, pixels):
    """The run of `condition` from the text of the prompts on."""
    torch.manual_seed(17)
    tokenizer = T5Tokenizer.from_pretrained(pathlib.Path(__file__).parent.parent / "t5")
    config = T5Config(vocab_size=len(tokenizer), d_model=TEXT, d_kv=4, d_ff=24, num_layers=2, num_heads=3,
                      feed_forward_proj="gated-gelu", dropout_rate=0.0)
    encoder = off_start(T5EncoderModel(config), 0.1)
    out = weights(encoder)
    del out["weights.encoder.embed_tokens.weight"]
    texts = {"prompt": "a video of the quick brown fox", "negative": "an image"}
    pipe = LTXConditionPipeline(scheduler, autoencoder, encoder, tokenizer, model)
    pipe.set_progress_bar_config(disable=True)
    for key, text in texts.items():
        embeds, mask, _, _ = pipe.encode_prompt(text, do_classifier_free_guidance=False)
        assert embeds.shape[1] == 256
        out[f"embeds.{key}"] = embeds[:, mask[0].bool()]
    for key, guidance in [("plain", 1.0), ("guided", 3.0)]:
        out[f"sample.{key}"] = pipe(
            image=Image.fromarray(pixels), prompt=texts["prompt"], negative_prompt=texts["negative"],
            height=pixels.shape[0], width=pixels.shape[1], num_frames=17, num_inference_steps=4, guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(42), output_type="latent", return_dict=False)[0]
    save("prompt", out, {"text_encoder": config.to_dict() | {"dtype": None}} | texts)


schedule()
transformer()
for name in ["vae_090", "vae_091", "vae_095"]:
    vae(name)
training()
with torch.no_grad():
    condition()
    compression()
