"""Puts the first answers of some tasks on one sheet: `python docs/results/gallery.py CACHE`.

Reads the sheets that `pipe run pipelines/*.toml --profile quick --keep-going` wrote below CACHE/pictures
and writes docs/results/gallery.png. Needs Pillow.
"""

import sys
from pathlib import Path

from PIL import Image

SHEETS = [
    ("segmentation_ablation.quick", "interpolation=discrete_modules=qkvo_n=10"),
    ("depth.quick", "colors=hue"),
    ("mask_to_image.quick", "n=10"),
    ("pose_ablation.quick", "interpolation=discrete_modules=qkvo_n=10"),
    ("jigsaw.quick", "n=10"),
    ("concept_arc.quick", "concept=recolor"),
]
WIDTH, HEIGHT, GAP = 400, 268, 8


def main(cache: Path) -> None:
    rows = (len(SHEETS) + 1) // 2
    size = (2 * WIDTH + GAP, rows * HEIGHT + (rows - 1) * GAP)
    gallery = Image.new("RGB", size, "white")
    for place, (folder, cell) in enumerate(SHEETS):
        [path] = (cache / "pictures" / folder).glob(f"answers-{cell}*.png")
        sheet = Image.open(path).convert("RGB").crop((0, 0, WIDTH, HEIGHT))
        gallery.paste(sheet, (place % 2 * (WIDTH + GAP), place // 2 * (HEIGHT + GAP)))
    gallery.save(Path(__file__).parent / "gallery.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
