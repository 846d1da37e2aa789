"""What a block of a transformer keeps for the backward pass, by the modules that an adapter trains.

Usage: maps.py PIPE FOLDER MODEL..., with the built binary, an empty folder to work in, and models in diffusers' layout,
such as small random ones of either family; their transformers are replaced by ones of width 256. Needs torch and
diffusers. Two numbers of blocks and two batch sizes of a step on the CPU give
four peaks (`VmHWM`). Printed is by how much more or less they grow with the batch than `pipe plan` says of activations;
attention is taken off as it is planned.
"""
import importlib
import json
import pathlib
import shutil
import subprocess
import sys
import time

import torch

binary, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
BLOCKS, BATCHES = (2, 6), (4, 16)
MODULES = ["qk", "qkvo", "all_linear_blocks", "all_linear"]
SIZES = {"LTXVideoTransformer3DModel": [256, 384], "CogVideoXTransformer3DModel": [128, 192]}

HEAD = """name = "maps"

[stages.pairs]
kind = "dataset"
source = "builtin:figures"
task = "pose"
count = 1
size = {size}

[stages.clips]
kind = "interpolate"
inputs = {{ pairs = "pairs" }}
method = "linear"
frames = 9
"""
MODEL = """
[stages.prompt{blocks}]
kind = "text_encode"
model = "model{blocks}"

[stages.latents{blocks}]
kind = "vae_encode"
inputs = {{ videos = "clips" }}
model = "model{blocks}"
"""
TRAINING = """
[stages.{name}]
kind = "lora_train"
inputs = {{ latents = "latents{blocks}", text = "prompt{blocks}" }}
model = "model{blocks}"
steps = 1
rank = 4
batch_size = {batch}
modules = "{modules}"
"""


def run(cwd, *args):
    """Peak of the process in bytes, and what it printed."""
    child = subprocess.Popen([binary, *args, "--device", "cpu"], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peak, status = 0, pathlib.Path(f"/proc/{child.pid}/status")
    while child.poll() is None:
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        peak = max(peak, *[int(line.split()[1]) * 1024 for line in lines], 0)
        time.sleep(0.01)
    assert child.returncode == 0, args
    return peak, child.stdout.read()


def measure(source):
    here = folder / source.name
    config = json.loads((source / "transformer/config.json").read_text())
    kind = getattr(importlib.import_module("diffusers"), config["_class_name"])
    sizes = {key: value for key, value in config.items() if not key.startswith("_")}
    sizes |= {"num_attention_heads": 4, "attention_head_dim": 64}
    if "cross_attention_dim" in sizes:
        sizes["cross_attention_dim"] = 256
    text = HEAD.format(size=SIZES[config["_class_name"]])
    trainings = [(blocks, modules, batch) for blocks in BLOCKS for modules in MODULES for batch in BATCHES]
    for blocks in BLOCKS:
        shutil.copytree(source, here / f"model{blocks}", ignore=shutil.ignore_patterns("transformer"))
        kind(**sizes | {"num_layers": blocks}).save_pretrained(here / f"model{blocks}/transformer")
        text += MODEL.format(blocks=blocks)
    name = "t_{}_{}_{}".format
    for blocks, modules, batch in trainings:
        text += TRAINING.format(name=name(blocks, modules, batch), blocks=blocks, modules=modules, batch=batch)
    (here / "maps.toml").write_text(text)
    given = [f"{stage}{blocks}" for stage in ("prompt", "latents") for blocks in BLOCKS]
    run(here, "run", "maps.toml", *[word for stage in given for word in ("--only", stage)])
    plan = json.loads(run(here, "plan", "maps.toml", "--json")[1])
    planned = {stage["name"]: stage["memory"] for stage in plan["stages"]}
    peaks = {}
    for key in trainings:
        peaks[key] = run(here, "run", "maps.toml", "--only", name(*key), "--force", name(*key), "--jobs", "1")[0]
    for modules in MODULES:
        grows = lambda blocks: sum(
            sign * (peaks[blocks, modules, batch] - planned[name(blocks, modules, batch)]["attention"])
            for sign, batch in zip((-1, 1), BATCHES)
        )
        plans = lambda blocks: sum(
            sign * planned[name(blocks, modules, batch)]["activations"] for sign, batch in zip((-1, 1), BATCHES)
        )
        few, many = (grows(blocks) / plans(blocks) for blocks in BLOCKS)
        print(f"| {source.name} | `{modules}` | {few:.2f} | {many:.2f} |", flush=True)


torch.manual_seed(1)
print(f"| model | modules | measured / planned, {BLOCKS[0]} blocks | {BLOCKS[1]} blocks |\n|---|---|---|---|")
for model in sys.argv[3:]:
    measure(pathlib.Path(model).resolve())
