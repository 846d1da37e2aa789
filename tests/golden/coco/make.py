"""Writes expected.json: what pycocotools 2.0.11 makes of every annotation of a COCO folder.

    python make.py FOLDER      (holds annotations/instances_{train,val}2017.json)

A mask is told by its number of set pixels, the sum of their places (row by row), and the sum of the
places' squares modulo 1000003.
"""

import json
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as api

folder, expected = Path(sys.argv[1]), {}
for split in ("train", "val"):
    data = json.loads((folder / f"annotations/instances_{split}2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    for annotation in data["annotations"]:
        (h, w), shape = sizes[annotation["image_id"]], annotation["segmentation"]
        if isinstance(shape, list):
            runs = api.merge(api.frPyObjects(shape, h, w))
        else:
            runs = api.frPyObjects(shape, h, w)
        at = np.flatnonzero(api.decode(runs)).astype(np.int64)
        expected[str(annotation["id"])] = [len(at), int(at.sum()), int((at * at % 1000003).sum())]
text = ",\n".join(f'"{key}": {value}' for key, value in expected.items())
Path(__file__).with_name("expected.json").write_text("{\n" + text + "\n}\n")
