"""Writes expected.json: what rendering and decoding make of every task, as the rule reads in NumPy.

    python make.py DATA      (holds arc/data/{training,evaluation} and conceptarc/corpus; NumPy 2)

A task is told by two numbers: a hash of its rendered images (train inputs and outputs, then those of the
tests), and a hash of what is read off the outputs of its tests after their colours were shifted and spoilt.
"""

import json
import sys
from pathlib import Path

import numpy as np

PALETTE = np.array(
    [(0, 0, 0), (0, 116, 217), (255, 65, 54), (46, 204, 64), (255, 220, 0), (170, 170, 170)]
    + [(240, 18, 190), (255, 133, 27), (127, 219, 255), (135, 12, 37)]
)
SIDE, LINE, MODULUS = 400, 2, 2**61 - 1


def cell_side(grids):
    sides = (max(len(g) for g in grids), max(len(g[0]) for g in grids))
    return min((SIDE - LINE * (n + 1)) // n for n in sides)


def spans(count, side):
    start = (SIDE - count * (side + LINE) - LINE) // 2
    return [slice(start + i * (side + LINE) + LINE, start + (i + 1) * (side + LINE)) for i in range(count)]


def render(grid, side):
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    rows, columns = spans(len(grid), side), spans(len(grid[0]), side)
    image[rows[0].start - LINE : rows[-1].stop + LINE, columns[0].start - LINE : columns[-1].stop + LINE] = 85
    for y, row in zip(rows, grid):
        for x, value in zip(columns, row):
            image[y, x] = PALETTE[value]
    return image


def decode(image, h, w, side):
    image, before = image.astype(np.float64), 0.0
    for _ in range(3):
        means, best = nearest(image, h, w, side)
        total = np.linalg.norm(means - PALETTE[best], axis=1).sum()
        if abs(before - total) < 1:
            break
        before = total
        image = np.clip(image + (PALETTE[best] - means).mean(0), 0, 255)
    return nearest(image, h, w, side)[1]


def nearest(image, h, w, side):
    cells = [image[y, x].mean((0, 1)) for y in spans(h, side) for x in spans(w, side)]
    # Means are cut to whole numbers; one that is whole but for rounding stays it.
    means = np.floor(np.array(cells) + 1e-3)
    return means, np.linalg.norm(means[:, None] - PALETTE[None], axis=2).argmin(1)


def spoilt(image, seed):
    """Colours with a gain, a shift and noise, in whole numbers."""
    state = np.arange(image.size, dtype=np.uint64) + np.uint64(seed * 1_000_003)
    noise = (state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)) >> np.uint64(58)
    shift = np.tile([seed % 41 - 20, seed % 29 - 14, seed % 23 - 11], image.size // 3)
    values = image.ravel().astype(int) * (56 + seed % 17) // 64 + shift + noise.astype(int) - 32
    return np.clip(values, 0, 255).astype(np.uint8).reshape(image.shape)


def told(numbers):
    at = np.arange(len(numbers), dtype=np.int64)
    return int((numbers * (at + 1)).sum() + (numbers * (at * at % 1_000_003)).sum())


def hashed(arrays):
    total = 0
    for array in arrays:
        total = (total * 31 + told(array.ravel().astype(np.int64))) % MODULUS
    return total


def task(path, seed):
    data = json.loads(path.read_text())
    examples = data["train"] + data["test"]
    outputs = [e["output"] for e in examples]
    is_black = all(value == 0 for grid in outputs for row in grid for value in row)
    if is_black and len({(len(g), len(g[0])) for g in outputs}) > 1:
        for e in examples:
            e["output"] = [[5] * len(row) for row in e["output"]]
    side = cell_side([e[part] for e in examples for part in ("input", "output")])
    images = [render(e[part], side) for e in examples for part in ("input", "output")]
    read = [
        decode(spoilt(render(e["output"], side), seed), len(e["output"]), len(e["output"][0]), side)
        for e in data["test"]
    ]
    return [hashed(images), hashed(read)]


root, expected = Path(sys.argv[1]), {}
paths = sorted(root.glob("arc/data/*/*.json")) + sorted(root.glob("conceptarc/corpus/*/*.json"))
for seed, path in enumerate(paths):
    expected[str(path.relative_to(root))] = [seed, *task(path, seed)]
text = ",\n".join(f'"{key}": {value}' for key, value in expected.items())
Path(__file__).with_name("expected.json").write_text("{\n" + text + "\n}\n")
print(len(expected), "tasks")
