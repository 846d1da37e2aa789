"""Writes every tensor's name and shape of the published models, from their classes without data.

Usage: make.py [FOLDER]. Needs torch, diffusers and transformers. The first line of a file is the
part's `config.json`; the others are names and shapes. `[0-41]` stands for the numbers 0 to 41: names
that differ in their first number alone, and have one shape, share a line.
"""
import json
import pathlib
import re
import sys

import torch
from diffusers import (AutoencoderKLCogVideoX, AutoencoderKLLTXVideo, CogVideoXTransformer3DModel,
                       LTXVideoTransformer3DModel)
from transformers import T5Config, T5EncoderModel

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)


def lines(state):
    groups = {}
    for name, tensor in state.items():
        number = re.search(r"(?<=\.)\d+(?=\.)", name)
        key = (name[:number.start()], name[number.end():]) if number else (name, "")
        groups.setdefault((*key, tuple(tensor.shape)), []).append(int(number[0]) if number else None)
    for (head, tail, shape), numbers in groups.items():
        runs = []
        for number in numbers:
            if runs and number is not None and number == runs[-1][1] + 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
        for first, last in runs:
            index = "" if first is None else f"[{first}-{last}]" if first != last else str(first)
            yield f"{head}{index}{tail} {list(shape)}"


def write(name, make, config):
    with torch.device("meta"):
        state = make(config).state_dict()
    print(name, len(state), sum(tensor.numel() for tensor in state.values()))
    (folder / f"{name}.txt").write_text("\n".join([json.dumps(config), *lines(state)]) + "\n")


def write_diffusers(name, model, **config):
    write(name, lambda config: model(**config), config)


cogvideox = dict(num_attention_heads=48, attention_head_dim=64, in_channels=32, out_channels=16, num_layers=42,
                 text_embed_dim=4096, max_text_seq_length=226, use_rotary_positional_embeddings=True)
write_diffusers("cogvideox_15", CogVideoXTransformer3DModel, **cogvideox, patch_size_t=2, patch_bias=False,
                ofs_embed_dim=512, sample_frames=81, sample_height=300, sample_width=300)
write_diffusers("cogvideox_10", CogVideoXTransformer3DModel, **cogvideox, use_learned_positional_embeddings=True)
write_diffusers("cogvideox_vae", AutoencoderKLCogVideoX, **{
    kind + "_block_types": [f"CogVideoX{kind.title()}Block3D"] * 4 for kind in ("down", "up")},
    block_out_channels=[128, 256, 256, 512], latent_channels=16, layers_per_block=3, scaling_factor=0.7)
write_diffusers("ltx_video", LTXVideoTransformer3DModel)
write_diffusers("ltx_video_vae_090", AutoencoderKLLTXVideo)
decoder = dict(decoder_block_out_channels=[256, 512, 1024], decoder_spatio_temporal_scaling=[True] * 3,
               upsample_residual=[True] * 3, upsample_factor=[2] * 3, timestep_conditioning=True)
write_diffusers("ltx_video_vae_091", AutoencoderKLLTXVideo, **decoder, decoder_layers_per_block=[5, 6, 7, 8],
                decoder_inject_noise=[True, True, True, False])
write_diffusers("ltx_video_vae_095", AutoencoderKLLTXVideo, **decoder, decoder_layers_per_block=[5, 5, 5, 5],
                decoder_inject_noise=[False] * 4, block_out_channels=[128, 256, 512, 1024, 2048],
                down_block_types=["LTXVideo095DownBlock3D"] * 4, layers_per_block=[4, 6, 6, 2, 2],
                spatio_temporal_scaling=[True] * 4, downsample_type=["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
                spatial_compression_ratio=32, temporal_compression_ratio=8)
write("t5_xxl", lambda config: T5EncoderModel(T5Config(**config)), dict(
    d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24, vocab_size=32128, feed_forward_proj="gated-gelu",
    relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6))
