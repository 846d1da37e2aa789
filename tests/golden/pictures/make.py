"""Writes unusual pictures and what Pillow reads of them (expected.json: the mean of each channel).

    python make.py            (Pillow 12)
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

here = Path(__file__).parent
ramp = np.tile(np.linspace(20, 220, 32), (16, 1))
rgb = Image.fromarray(np.stack([ramp, ramp[:, ::-1], ramp * 0 + 60], 2).astype(np.uint8))
exif = Image.Exif()
exif[0x0112] = 6  # to be turned a quarter clockwise
rgb.save(here / "rotated.jpg", quality=95, exif=exif)
rgb.convert("CMYK").save(here / "cmyk.jpg", quality=95)
rgb.convert("L").save(here / "grey.jpg", quality=95)
Image.fromarray((ramp * 257).astype(np.uint16)).save(here / "grey16.png")
rgb.convert("P").save(here / "palette.png")

expected = {}
for name in ["rotated.jpg", "cmyk.jpg", "grey.jpg", "grey16.png", "palette.png"]:
    image = Image.open(here / name)
    if name == "grey16.png":
        pixels = np.repeat((np.asarray(image) / 257)[:, :, None], 3, 2)
    else:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=float)
    h, w, _ = pixels.shape
    expected[name] = {"size": [w, h], "mean": pixels.mean((0, 1)).tolist(), "first": pixels[0, 0].tolist()}
(here / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
