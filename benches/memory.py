"""Compares the memory that `pipe plan` foretells with the peak that a run takes, on the CPU.

Usage: memory.py PIPE FOLDER, with the built binary and an empty folder to work in. Needs torch and
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
frames = 5

[stages.prompt]
kind = "text_encode"
model = "model"

[stages.latents]
kind = "vae_encode"
inputs = { videos = "clips" }
model = "model"
"""
for name, settings in [("kept", 'batch_size = 16'), ("recomputed", 'batch_size = 16\nrecompute = "block"'),
                       ("larger", 'batch_size = 32\nrank = 16')]:
    STAGES += f"""
[stages.{name}]
kind = "lora_train"
inputs = {{ latents = "latents", text = "prompt" }}
model = "model"
steps = 1
{settings}
"""
STAGES += """
[stages.one]
kind = "sample"
inputs = { pairs = "pairs", text = "prompt" }
model = "model"
frames = 5
steps = 1
batch_size = 1

[stages.frames]
kind = "decode"
inputs = { samples = "one" }
model = "model"
"""
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
run("run", "memory.toml", "--only", "clips")
print(f"{'stage':12} {'foretold':>9} {'peak':>9}  MiB")
for name in ["prompt", "latents", "kept", "recomputed", "larger", "one", "frames"]:
    peak, _ = run("run", "memory.toml", "--only", name, "--jobs", "1")
    memory = foretold[name]
    parts = ", ".join(f"{k} {v / 2**20:.0f}" for k, v in memory.items() if k != "total" and v)
    print(f"{name:12} {memory['total'] / 2**20:9.0f} {peak / 2**20:9.0f}  {parts}", flush=True)
