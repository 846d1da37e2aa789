"""Trains an LTX-Video adapter with pipe and uses it in diffusers: both must make the same clips.

Usage: ltx_video.py PIPE MODEL FOLDER, with the built binary, an LTX-Video model in diffusers' layout
whose T5 has a `spiece.model`, and an empty folder to work in. Needs torch, diffusers, transformers,
peft and sentencepiece. Compares the prompt's encoding, sampled latents and the last decoded frame,
without and with the adapter.
"""
import pathlib
import subprocess
import sys

import numpy as np
import torch
from diffusers import LTXImageToVideoPipeline
from PIL import Image
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from transformers import T5EncoderModel

binary, model, folder = (pathlib.Path(arg).resolve() for arg in sys.argv[1:4])
SEED, STEPS, SIZE, FRAMES, PROMPT, TOKENS = 42, 5, (64, 96), 9, "transform the input", 128
PIPELINE = f"""
name = "interop"
seed = {SEED}

[stages.pairs]
kind = "dataset"
source = "builtin:figures"
task = "pose"
split = "train"
count = 2
size = [{SIZE[0]}, {SIZE[1]}]

[stages.clips]
kind = "interpolate"
inputs = {{ pairs = "pairs" }}
method = "linear"
frames = {FRAMES}

[stages.prompt]
kind = "text_encode"
model = "{model}"
prompt = "{PROMPT}"

[stages.latents]
kind = "vae_encode"
inputs = {{ videos = "clips" }}
model = "{model}"

[stages.lora]
kind = "lora_train"
inputs = {{ latents = "latents", text = "prompt" }}
model = "{model}"
rank = 4
alpha = 2
modules = "all_linear"
steps = 30
learning_rate = 3e-3
optimizer = {{ betas = [0.9, 0.99], weight_decay = 0.0 }}
"""
for name, lora in [("plain", ""), ("adapted", ', lora = "lora"')]:
    PIPELINE += f"""
[stages.{name}]
kind = "sample"
inputs = {{ pairs = "pairs", text = "prompt"{lora} }}
model = "{model}"
frames = {FRAMES}
steps = {STEPS}

[stages.{name}_frames]
kind = "decode"
inputs = {{ samples = "{name}" }}
model = "{model}"
noise = {{ seed = {SEED} }}
"""


def pipe(*args):
    subprocess.run([binary, *args, "--cache", folder / "cache"], check=True, cwd=folder, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def exported(stage):
    pipe("export", "interop.toml", stage, "--to", folder / stage)
    return sorted(path for path in (folder / stage).rglob("*") if path.is_file())


def only(stage, ending):
    return [path for path in exported(stage) if path.name.endswith(ending)]


def compare(what, found, wanted, tolerance):
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    print(f"{what:32} {error:.1e} of {tolerance:.0e} {'ok' if error <= tolerance else 'FAILED'}")
    return error <= tolerance


folder.mkdir(parents=True, exist_ok=True)
(folder / "interop.toml").write_text(PIPELINE)
pipe("run", "interop.toml")

ids = [*SentencePieceProcessor(str(model / "tokenizer/spiece.model")).encode(PROMPT), 1]
encoder = T5EncoderModel.from_pretrained(model / "text_encoder").eval()
padded = torch.tensor([ids + [0] * (TOKENS - len(ids))])
mask = (torch.arange(TOKENS) < len(ids))[None]
with torch.no_grad():
    embeds = encoder(padded).last_hidden_state
[file] = only("prompt", ".safetensors")
good = [compare("prompt", load_file(file)["embedding"], embeds[0, :len(ids)], 1e-4)]

diffusers = LTXImageToVideoPipeline.from_pretrained(model, text_encoder=None, tokenizer=None)
diffusers.set_progress_bar_config(disable=True)
pair = only("pairs", ".input.png")[0]
image = Image.open(pair)


def sample(output):
    clip = diffusers(image=image, prompt_embeds=embeds, prompt_attention_mask=mask, height=SIZE[0], width=SIZE[1],
                     num_frames=FRAMES, num_inference_steps=STEPS, guidance_scale=1.0,
                     generator=torch.Generator("cpu").manual_seed(SEED), output_type=output, return_dict=False,
                     decode_timestep=0.05, decode_noise_scale=0.025)[0]
    return clip[0]


made = {}
[adapter] = only("lora", ".safetensors")
for stage in ["plain", "adapted"]:
    if stage == "adapted":
        diffusers.load_lora_weights(adapter)
    latents = load_file(only(stage, ".safetensors")[0])
    [latents] = latents.values()
    made[stage] = latents
    # [S, C], frame by frame.
    good.append(compare(f"{stage} latents", latents.permute(1, 2, 3, 0).flatten(0, 2), sample("latent"), 2e-3))
    # The prediction is the last frame, rounded to bytes.
    prediction = np.asarray(Image.open(only(f"{stage}_frames", pair.name.replace(".input", ""))[0]).convert("RGB"))
    last = sample("np")[-1] * 255
    good.append(compare(f"{stage} last frame", torch.tensor(prediction).float(), torch.tensor(last).float(), 5e-3))
difference = (made["adapted"] - made["plain"]).abs().max() / made["plain"].abs().max()
print(f"the adapter moves latents by         {difference:.1e}")
modules = {key.rsplit(".lora_", 1)[0] for key in load_file(adapter)}
print(f"{len(modules)} adapted modules")
sys.exit(0 if all(good) and difference > 1e-3 else 1)
