"""Small random models in diffusers' layout for the scripts beside this one, which take a MODEL.

Usage: models.py FOLDER. Writes `cogvideox_10`, `ltx_video_091` and `ltx_video_095`. Needs torch, diffusers and
transformers. The tokenizer is that of `tests/golden/t5`.
"""
import pathlib
import shutil
import sys

import torch
from diffusers import (AutoencoderKLCogVideoX, AutoencoderKLLTXVideo, CogVideoXDPMScheduler,
                       CogVideoXImageToVideoPipeline, CogVideoXTransformer3DModel, FlowMatchEulerDiscreteScheduler,
                       LTXConditionPipeline, LTXImageToVideoPipeline, LTXVideoTransformer3DModel)
from transformers import T5Config, T5EncoderModel

FOLDER = pathlib.Path(sys.argv[1])
SPIECE = pathlib.Path(__file__).parents[1] / "golden/t5/spiece.model"
TEXT, CHANNELS = 24, 8


def off_start(model, std):
    """Moves tensors off zeros and ones, which hide mistakes."""
    for name, tensor in model.eval().requires_grad_(False).named_parameters():
        if name != "decoder.timestep_scale_multiplier":
            tensor.add_(std * torch.randn_like(tensor))
    return model


def save(name, pipeline, scheduler, vae, transformer):
    """With a text encoder, all of it as diffusers saves it."""
    encoder = off_start(T5EncoderModel(T5Config(
        vocab_size=228, d_model=TEXT, d_kv=8, d_ff=48, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu",
        dropout_rate=0.0)), 0.05)
    pipeline(scheduler=scheduler, vae=off_start(vae, 0.03), text_encoder=encoder, tokenizer=None,
             transformer=off_start(transformer, 0.1)).save_pretrained(FOLDER / name)
    (FOLDER / name / "tokenizer").mkdir(exist_ok=True)
    shutil.copy(SPIECE, FOLDER / name / "tokenizer")


def cogvideox_10():
    """Its learned positions are of 9 frames of 48x80."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=3, attention_head_dim=32, in_channels=2 * CHANNELS, out_channels=CHANNELS,
        time_embed_dim=32, text_embed_dim=TEXT, num_layers=3, sample_height=6, sample_width=10, sample_frames=9,
        max_text_seq_length=16, use_rotary_positional_embeddings=True, use_learned_positional_embeddings=True)
    # Published tables were trained.
    table = transformer.patch_embed.pos_embedding
    table.add_(0.1 * torch.randn_like(table))
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 16, 16), latent_channels=CHANNELS, layers_per_block=1, norm_num_groups=4,
        sample_height=48, sample_width=80, scaling_factor=0.7)
    scheduler = CogVideoXDPMScheduler(
        beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=3.0,
        timestep_spacing="trailing", clip_sample=False)
    save("cogvideox_10", CogVideoXImageToVideoPipeline, scheduler, vae, transformer)


def ltx_video(name, pipeline, schedule, **vae):
    transformer = LTXVideoTransformer3DModel(
        in_channels=CHANNELS, out_channels=CHANNELS, num_attention_heads=3, attention_head_dim=16,
        cross_attention_dim=48, num_layers=2, caption_channels=TEXT)
    vae = AutoencoderKLLTXVideo(latent_channels=CHANNELS, timestep_conditioning=True, **vae)
    vae.latents_mean.normal_(std=0.1)
    vae.latents_std.uniform_(0.5, 1.5)
    save(name, pipeline, FlowMatchEulerDiscreteScheduler(**schedule), vae, transformer)


torch.manual_seed(0)
with torch.no_grad():
    cogvideox_10()
    ltx_video("ltx_video_091", LTXImageToVideoPipeline,
              dict(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
                   max_image_seq_len=4096, shift_terminal=0.1),
              block_out_channels=(4, 8, 8), down_block_types=("LTXVideoDownBlock3D",) * 3,
              layers_per_block=(1,) * 4, spatio_temporal_scaling=(True,) * 3, downsample_type=("conv",) * 3,
              decoder_block_out_channels=(8, 16, 32), decoder_layers_per_block=(1,) * 4,
              decoder_spatio_temporal_scaling=(True,) * 3, decoder_inject_noise=(False,) * 4,
              upsample_residual=(True,) * 3, upsample_factor=(2,) * 3)
    ltx_video("ltx_video_095", LTXConditionPipeline, {},
              block_out_channels=(4, 4, 8, 8, 8), down_block_types=("LTXVideo095DownBlock3D",) * 4,
              layers_per_block=(1,) * 5, spatio_temporal_scaling=(True,) * 4,
              downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
              spatial_compression_ratio=32, temporal_compression_ratio=8, decoder_block_out_channels=(8, 16, 32),
              decoder_layers_per_block=(1,) * 4, decoder_spatio_temporal_scaling=(True,) * 3,
              decoder_inject_noise=(False,) * 4, upsample_residual=(True,) * 3, upsample_factor=(2,) * 3)
