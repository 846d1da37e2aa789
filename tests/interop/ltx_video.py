"""Trains an LTX-Video adapter with pipe and uses it in diffusers: both must make the same clips.

Usage: ltx_video.py PIPE MODEL FOLDER, with the built binary, an LTX-Video model in diffusers' layout
whose T5 has a `spiece.model`, and an empty folder to work in. Needs torch, diffusers, transformers,
peft and sentencepiece. Compares the prompt's encoding, sampled latents and the last decoded frame:
without an adapter, with one, and with one trained and sampled at another frame rate. What `pipe` runs
is `ltx_video.toml`.
"""
import pathlib
import subprocess
import sys
import tomllib

import numpy as np
import torch
from diffusers import LTXImageToVideoPipeline
from PIL import Image
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from transformers import T5EncoderModel

binary, model, folder = (pathlib.Path(arg).resolve() for arg in sys.argv[1:4])
TEXT = pathlib.Path(__file__).with_suffix(".toml").read_text()
PIPELINE, TOKENS = tomllib.loads(TEXT), 128
PARAMS, SEED = PIPELINE["params"], PIPELINE["seed"]
SIZE, FRAMES, PROMPT = PARAMS["size"], PARAMS["frames"], PARAMS["prompt"]


def pipe(command, *args):
    done = subprocess.run([binary, command, "ltx_video.toml", *args, "--set", f"params.model={model}", "--cache",
                           folder / "cache"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pipe {command} failed with {done.returncode}\n{done.stderr}")


def exported(stage):
    pipe("export", stage, "--to", folder / stage)
    return sorted(path for path in (folder / stage).rglob("*") if path.is_file())


def only(stage, ending):
    return [path for path in exported(stage) if path.name.endswith(ending)]


def compare(what, found, wanted, tolerance):
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    print(f"{what:32} {error:.1e} of {tolerance:.0e} {'ok' if error <= tolerance else 'FAILED'}")
    return error <= tolerance


folder.mkdir(parents=True, exist_ok=True)
(folder / "ltx_video.toml").write_text(TEXT)
pipe("run")

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


def sample(output, frame_rate):
    clip = diffusers(image=image, prompt_embeds=embeds, prompt_attention_mask=mask, height=SIZE[0], width=SIZE[1],
                     num_frames=FRAMES, frame_rate=frame_rate, num_inference_steps=PARAMS["steps"], guidance_scale=1.0,
                     generator=torch.Generator("cpu").manual_seed(SEED), output_type=output, return_dict=False,
                     decode_timestep=0.05, decode_noise_scale=0.025)[0]
    return clip[0]


made, adapters = {}, {"adapted": "lora", "slow": "slow_lora"}
for stage, frame_rate in [("plain", 25), ("adapted", 25), ("slow", PARAMS["slow"])]:
    diffusers.unload_lora_weights()
    if stage in adapters:
        [adapter] = only(adapters[stage], ".safetensors")
        diffusers.load_lora_weights(adapter)
    latents = load_file(only(stage, ".safetensors")[0])
    [latents] = latents.values()
    made[stage] = latents
    # [S, C], frame by frame.
    wanted = sample("latent", frame_rate)
    good.append(compare(f"{stage} latents", latents.permute(1, 2, 3, 0).flatten(0, 2), wanted, 1e-4))
    # The prediction is the last frame, rounded to bytes.
    prediction = np.asarray(Image.open(only(f"{stage}_frames", pair.name.replace(".input", ""))[0]).convert("RGB"))
    last = sample("np", frame_rate)[-1] * 255
    good.append(compare(f"{stage} last frame", torch.tensor(prediction).float(), torch.tensor(last).float(), 5e-3))


def moves(what, one, other):
    share = ((made[one] - made[other]).abs().max() / made[other].abs().max()).item()
    good.append(share > 1e-3)
    print(f"{what:32} {share:.1e}")


moves("the adapter moves latents by", "adapted", "plain")
moves("the frame rate moves them by", "slow", "adapted")
print(f"{'adapted modules':32} {len({key.rsplit('.lora_', 1)[0] for key in load_file(adapter)})}")
sys.exit(0 if all(good) else 1)
