"""Write picture.jpg: tissue of the demonstration beside the cells that were called in it.

deepliif-ray demo demo; python docs/make_picture.py demo
"""

import struct
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from deepliif_ray.query import ask
from deepliif_ray.slides.reader import open_slide

TARGET = Path(__file__).with_name("picture.jpg")
SLIDE, X, Y, SIDE, GAP = "P02-Ki67", 400, 400, 448, 8
COLOURS = {True: (214, 30, 30), False: (20, 70, 220)}


def ring(wkb: bytes) -> list[tuple[float, float]]:
    """Return the outline that a WKB polygon holds, in pixels of the picture."""
    (count,) = struct.unpack_from("<I", wkb, 9)
    flat = struct.unpack_from(f"<{2 * count}d", wkb, 13)
    return [(x - X, y - Y) for x, y in zip(flat[::2], flat[1::2], strict=True)]


def main(demo: Path) -> None:
    """Write the picture of the demonstration in the folder ``demo``."""
    with open_slide(demo / "cohort" / f"{SLIDE}.tiff") as slide:
        tissue = Image.fromarray(slide.read_rgb(0, X, Y, SIDE, SIDE))
    cells = ask(
        str(demo / "results"),
        f"SELECT positive, boundary FROM called_cells WHERE slide_id = '{SLIDE}' "
        f"AND bbox_x1 > {X} AND bbox_x0 < {X + SIDE} AND bbox_y1 > {Y} AND bbox_y0 < {Y + SIDE}",
    )
    called = tissue.copy()
    draw = ImageDraw.Draw(called)
    for cell in cells.to_pylist():
        outline = ring(cell["boundary"])
        draw.line([*outline, outline[0]], fill=COLOURS[cell["positive"]], width=3)
    picture = Image.new("RGB", (2 * SIDE + GAP, SIDE), "white")
    picture.paste(tissue, (0, 0))
    picture.paste(called, (SIDE + GAP, 0))
    picture.save(TARGET, quality=85)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
