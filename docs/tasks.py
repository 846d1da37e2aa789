"""Puts inputs and targets of every task on one picture, `docs/tasks.png`. Needs Pillow.

    pipe run docs/tasks.toml
    for stage in drawn depth mask_to_image made grids; do
      pipe export docs/tasks.toml $stage --to PAIRS/$stage
    done
    python docs/tasks.py PAIRS
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE, LABEL, GAP, PAIRS, COLUMNS = 64, 96, 3, 3, 2


def rows(folder: Path):
    """The label and the folder of each task."""
    for stage in sorted(path for path in folder.iterdir() if path.is_dir()):
        cells = sorted(path for path in stage.iterdir() if path.is_dir())
        for cell in cells or [stage]:
            value = cell.name.split("=")[-1]
            yield {"depth": f"depth, {value}", "grids": f"grid, {value}"}.get(stage.name, value), cell


def main(folder: Path) -> None:
    tasks = list(rows(folder))
    height = -(-len(tasks) // COLUMNS)
    width = LABEL + PAIRS * (2 * SIDE + 2 * GAP) + GAP
    sheet = Image.new("RGB", (COLUMNS * width, height * (SIDE + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, (label, cell) in enumerate(tasks):
        x, y = place // height * width, place % height * (SIDE + GAP) + GAP
        draw.text((x + 4, y + SIDE // 2 - 8), label.replace("_", " "), "black", font)
        inputs = sorted(cell.glob("*.input.png"))[:PAIRS]
        for index, path in enumerate(inputs):
            left = x + LABEL + index * (2 * SIDE + 2 * GAP)
            sheet.paste(Image.open(path), (left, y))
            target = path.with_name(path.name.replace(".input.", ".target."))
            sheet.paste(Image.open(target), (left + SIDE + 1, y))
    sheet.save(Path(__file__).parent / "tasks.png", optimize=True)
    print(len(tasks), "tasks")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
