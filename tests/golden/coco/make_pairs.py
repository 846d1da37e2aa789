"""Writes pairs.json: what pairs of COCO must show, by pycocotools 2.0.11, NumPy and Pillow alone.

    python make_pairs.py FOLDER      (as for make.py, with person_keypoints_{train,val}2017.json, too)

`segmentation`: of each picture with a dog the mask at 480x720, told as in make.py: the union of its instances, brought to
size by nearest neighbour and cropped to the middle.
`pose`: of each picture with keypoints, points of the drawing at 480x720 with their colours. They are middles of dots
around which a drawing by Pillow has one colour, and points that are far from everything drawn, which are black.
`runs`: masks as pycocotools compresses them.
"""

import json
import math
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as api

HEIGHT, WIDTH, DOG = 480, 720, 18
PARTS = [  # in painting order: colour, dots, lines
    ((255, 255, 255), [0, 1, 2, 3, 4], []),
    ((255, 0, 0), [7, 8, 9, 10], [(5, 7), (7, 9), (6, 8), (8, 10)]),
    ((0, 0, 255), [5, 6, 11, 12], [(5, 6), (5, 11), (6, 12), (11, 12)]),
    ((0, 255, 0), [13, 14, 15, 16], [(11, 13), (13, 15), (12, 14), (14, 16)]),
]


def fit(h, w):
    """The scale that covers the size, the scaled size, and what the crop takes off left and top."""
    scale = max(WIDTH / w, HEIGHT / h)
    wide, high = math.ceil(w * scale - 1e-9), math.ceil(h * scale - 1e-9)
    return scale, (wide, high), ((wide - WIDTH) // 2, (high - HEIGHT) // 2)


def runs_of(annotation, h, w):
    shape = annotation["segmentation"]
    runs = api.frPyObjects(shape, h, w)
    return api.merge(runs) if isinstance(shape, list) else runs


def told(mask):
    at = np.flatnonzero(mask).astype(np.int64)
    return [len(at), int(at.sum()), int((at * at % 1000003).sum())]


def at_size(mask):
    _, (wide, high), (left, top) = fit(*mask.shape)
    h, w = mask.shape
    below = lambda kept, source, scaled: (2 * kept + 1) * source // (2 * scaled)
    rows = below(np.arange(HEIGHT) + top, h, high)
    return mask[rows][:, below(np.arange(WIDTH) + left, w, wide)]


def draw(persons, radius, thickness):
    image = Image.new("RGB", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(image)
    for person in persons:
        for color, dots, lines in PARTS:
            for a, b in lines:
                if person[a] and person[b]:
                    pen.line([person[a], person[b]], fill=color, width=round(thickness))
            for x, y in filter(None, (person[dot] for dot in dots)):
                pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color)
    return np.asarray(image)


def keypoints(annotation, h, w):
    scale, _, (left, top) = fit(h, w)
    points = np.array(annotation["keypoints"], dtype=float).reshape(17, 3)
    found = []
    for x, y, seen in points:
        # Lines lead to joints beyond the crop, too.
        x, y = (x + 0.5) * scale - 0.5 - left, (y + 0.5) * scale - 0.5 - top
        found.append((x, y) if seen > 0 else None)
    return found


def points_of(persons, image_id):
    drawn, wide = draw(persons, 5.6, 3.4), draw(persons, 18, 28)
    points = []
    for x, y in {(round(p[0]), round(p[1])) for person in persons for p in person if p}:
        if not (2 <= x < WIDTH - 2 and 2 <= y < HEIGHT - 2):
            continue
        around = drawn[y - 2:y + 3, x - 2:x + 3].reshape(-1, 3)
        if (around == around[0]).all():
            points.append([x, y, *map(int, around[0])])
    chance = random.Random(image_id)
    points = sorted(points)
    points = chance.sample(points, min(len(points), 12))
    for _ in range(8):
        x, y = chance.randrange(WIDTH), chance.randrange(HEIGHT)
        if not wide[y, x].any():
            points.append([x, y, 0, 0, 0])
    return points


folder, masks, poses, runs = Path(sys.argv[1]), {}, {}, []
for split in ("train", "val"):
    data = json.loads((folder / f"annotations/instances_{split}2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    for place, annotation in enumerate(data["annotations"]):
        h, w = sizes[annotation["image_id"]]
        own = runs_of(annotation, h, w)
        if annotation["category_id"] == DOG:
            union = masks.setdefault(annotation["image_id"], np.zeros((h, w), dtype=np.uint8))
            union |= api.decode(own)
        if place % 40 == 0 or annotation["iscrowd"]:
            size, counts = [int(side) for side in own["size"]], own["counts"].decode()
            runs.append({"size": size, "counts": counts, "told": told(api.decode(own))})
    data = json.loads((folder / f"annotations/person_keypoints_{split}2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    people = {}
    for annotation in data["annotations"]:
        found = keypoints(annotation, *sizes[annotation["image_id"]])
        people.setdefault(annotation["image_id"], []).append(found)
    for image_id, persons in people.items():
        points = points_of(persons, image_id)
        if any(any(point[2:]) for point in points):
            poses[image_id] = points

told_masks = {image_id: told(at_size(mask)) for image_id, mask in masks.items()}
sections = {
    "segmentation": {str(k): v for k, v in told_masks.items() if v[0]},
    "pose": {str(k): v for k, v in poses.items()},
}
lines = []
for name, entries in sections.items():
    rows = ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in entries.items())
    lines.append(f'"{name}": {{\n{rows}\n}}')
rows = ",\n".join(json.dumps(run) for run in runs)
lines.append(f'"runs": [\n{rows}\n]')
Path(__file__).with_name("pairs.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
