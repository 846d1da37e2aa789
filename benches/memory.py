"""Compares the memory that `pipe plan` foretells with the peak that a run takes, on the CPU.

Usage: memory.py PIPE FOLDER [STAGE...], with the built binary and an empty folder to work in. Needs torch and
diffusers, which make a model of middle size with random weights and the built-in model's other parts.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import time

import torch
from diffusers import CogVideoXTransformer3DModel

binary, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
tiny = pathlib.Path(__file__).parents[1] / "assets/builtin_tiny"
config = json.loads((tiny / "transformer/config.json").read_text())
shutil.copytree(tiny, folder / "model")
torch.manual_seed(1)
sizes = {k: v for k, v in config.items() if not k.startswith("_")}
sizes |= {"num_attention_heads": 8, "attention_head_dim": 64, "num_layers": 8, "time_embed_dim": 256, "ofs_embed_dim": 256,
          "sample_height": 64, "sample_width": 96}
shutil.rmtree(folder / "model/transformer")
CogVideoXTransformer3DModel(**sizes).save_pretrained(folder / "model/transformer")

STAGES = """name = "memory"

[stages.pairs]
kind = "dataset"
source = "builtin:figures"
task = "pose"
count = 1
size = [32, 48]

[stages.clips]
kind = "interpolate"
inputs = { pairs = "pairs" }
method = "linear"
frames = 9

[stages.large_pairs]
kind = "dataset"
source = "builtin:figures"
task = "pose"
count = 1
size = [128, 192]

[stages.large_clips]
kind = "interpolate"
inputs = { pairs = "large_pairs" }
method = "linear"
frames = 9

[stages.prompt]
kind = "text_encode"
model = "model"
"""


def stage(name, kind, inputs, **settings):
    global STAGES
    inputs = ", ".join(f'{port} = "{source}"' for port, source in inputs.items())
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    STAGES += "\n".join([f"\n[stages.{name}]", f'kind = "{kind}"', f"inputs = {{ {inputs} }}", *lines, ""])


model = dict(model="model")
for size in ["", "large_"]:
    stage(f"{size}latents", "vae_encode", dict(videos=f"{size}clips"), **model)
stage("tiled_latents", "vae_encode", dict(videos="large_clips"), tiling=True, **model)
training = dict(latents="latents", text="prompt")
for name, settings in [("kept", dict(batch_size=16)), ("recomputed", dict(batch_size=16, recompute="block")),
                       ("larger", dict(batch_size=32, rank=16))]:
    stage(name, "lora_train", training, steps=1, **settings, **model)
for size, parallel in [("", 1), ("large_", 1)]:
    pairs = f"{size}pairs"
    stage(f"{size}sample", "sample", dict(pairs=pairs, text="prompt"), frames=9, steps=1,
          batch_size=parallel, **model)
    stage(f"{size}frames", "decode", dict(samples=f"{size}sample"), **model)
stage("tiled_frames", "decode", dict(samples="large_sample"), tiling=True, **model)
for batch in [4, 16]:
    stage(f"vae_{batch}", "pretrain", dict(videos="clips"), part="vae", like="model", steps=1, batch_size=batch)
stage("vae_large", "pretrain", dict(videos="large_clips"), part="vae", like="model", steps=1, batch_size=1)
for batch in [2, 16]:
    stage(f"transformer_{batch}", "pretrain", training, part="transformer", like="model", steps=1, batch_size=batch)
stage("merged", "lora_merge", dict(first="kept"), **model)
(folder / "memory.toml").write_text(STAGES)


def run(*args):
    """Peak of the process in bytes, and what it printed."""
    child = subprocess.Popen([binary, *args, "--device", "cpu"], cwd=folder, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL)
    # What `wait` tells of a child counts this process before it became that one.
    peak, status = 0, pathlib.Path(f"/proc/{child.pid}/status")
    while child.poll() is None:
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        peak = max(peak, *[int(line.split()[1]) * 1024 for line in lines], 0)
        time.sleep(0.02)
    assert child.returncode == 0, args
    return peak, child.stdout.read()


plan = json.loads(run("plan", "memory.toml", "--json")[1])
foretold = {stage["name"]: stage["memory"] for stage in plan["stages"]}
run("run", "memory.toml", "--only", "clips", "--only", "large_clips")
# What the program takes before it has a model: that of a stage without one.
idle = run("run", "memory.toml", "--only", "clips", "--force", "clips")[0]
print(f"without a model: {idle / 2**20:.0f} MiB\n")
print("| stage | foretold | peak, less that without a model | peak / foretold |\n|---|---|---|---|")
for name in sys.argv[3:] or ["prompt", "latents", "large_latents", "tiled_latents", "kept", "recomputed", "larger", "sample", "large_sample",
             "frames", "large_frames", "tiled_frames", "vae_4", "vae_16", "vae_large", "transformer_2", "transformer_16",
             "merged"]:
    peak = run("run", "memory.toml", "--only", name, "--jobs", "1")[0] - idle
    memory = foretold[name]
    parts = ", ".join(f"{k} {v / 2**20:.0f}" for k, v in memory.items() if k != "total" and v)
    total = memory["total"]
    print(f"| `{name}` | {total / 2**20:.0f} MiB ({parts}) | {peak / 2**20:.0f} MiB | {peak / total:.2f} |", flush=True)
