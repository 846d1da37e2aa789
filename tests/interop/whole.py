"""A merged model that `pipe export --whole` puts together, loaded by diffusers as a whole pipeline.

Usage: whole.py PIPE FOLDER, with the built binary and an empty folder to work in. Needs torch, diffusers and
transformers. What `pipe` runs is `whole.toml`. Nothing but the folder is given to diffusers: scheduler, tokenizer, text
encoder, transformer and autoencoder are those in it, and it encodes the prompt itself. The same of a folder of links.
"""
import pathlib
import subprocess
import sys
import tomllib

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

binary, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
file = pathlib.Path(__file__).resolve().parent / "whole.toml"
PIPELINE = tomllib.loads(file.read_text())
PARAMS = PIPELINE["params"]


def pipe(command, *args):
    done = subprocess.run([binary, command, file, *args, "--cache", folder / "cache"], cwd=folder,
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pipe {command} failed with {done.returncode}\n{done.stderr}")


def export(stage, name, *options):
    pipe("export", stage, "--to", folder / name, *options)
    return folder / name


good = []


def compare(what, found, wanted, tolerance):
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    good.append(error <= tolerance)
    print(f"{what:40} {error:.1e} of {tolerance:.0e} {'ok' if good[-1] else 'FAILED'}")


def sampled(pipeline, output):
    height, width = PARAMS["size"]
    return pipeline(image=image, prompt=PARAMS["prompt"], height=height, width=width, num_frames=PARAMS["frames"],
                    num_inference_steps=PARAMS["steps"], guidance_scale=1.0,
                    max_sequence_length=pipeline.transformer.config.max_text_seq_length, output_type=output,
                    return_dict=False, generator=torch.Generator("cpu").manual_seed(PIPELINE["seed"]))[0][0]


pipe("run")
pair = next(export("pairs", "pairs").rglob("*.input.png"))
image = Image.open(pair)
[latents] = load_file(next(export("predict", "predict").rglob("*.safetensors"))).values()
frame = next(export("answers", "answers").rglob(pair.name.replace(".input", "")))
frame = torch.tensor(np.asarray(Image.open(frame).convert("RGB"))).float()
whole = export("merged", "whole", "--whole")
linked = export("merged", "linked", "--whole", "--base", whole, "--link")
for name, model in [("copied", whole), ("linked", linked)]:
    pipeline = DiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    wanted = sampled(pipeline, "latent")[-latents.shape[1]:].transpose(0, 1)
    compare(f"{name}: latents of the whole pipeline", latents, wanted, 1e-4)
    # Rounded to bytes: half a step is 2e-3.
    compare(f"{name}: last frame", frame, torch.tensor(sampled(pipeline, "np")[-1] * 255), 5e-3)
sys.exit(0 if all(good) else 1)
