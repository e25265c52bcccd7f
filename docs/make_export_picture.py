"""Write pictures/qupath.png: a slide's GeoJSON over its tissue in the demonstration, from the file alone.

deepliif-ray demo demo; python docs/make_export_picture.py demo

Outlines, classes and colours are read from the file as QuPath reads them, so the picture shows what it would.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw

from deepliif_ray.exports.qupath import export_qupath
from deepliif_ray.slides.reader import open_slide

TARGET = Path(__file__).with_name("pictures") / "qupath.png"
SLIDE, X, Y, WIDTH, HEIGHT = "P02-Ki67", 400, 400, 640, 320


def main(demo: Path) -> None:
    """Write the picture of the demonstration in the folder ``demo``."""
    with open_slide(demo / "cohort" / f"{SLIDE}.tiff") as slide:
        picture = Image.fromarray(slide.read_rgb(0, X, Y, WIDTH, HEIGHT))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "cells.geojson"
        export_qupath(str(demo / "results"), str(file), slide=SLIDE, strength=True)
        cells = json.loads(file.read_text())["features"]
    draw = ImageDraw.Draw(picture)
    seen: Counter[str] = Counter()
    for cell in cells:
        outline = [(x - X, y - Y) for x, y in cell["geometry"]["coordinates"][0]]
        if not any(0 <= x < WIDTH and 0 <= y < HEIGHT for x, y in outline):
            continue
        called = cell["properties"]["classification"]
        seen[called["name"]] += 1
        draw.line(outline, fill=tuple(called["color"]), width=2)
    picture.quantize(128).save(TARGET, optimize=True)
    sys.stdout.write(f"{dict(sorted(seen.items()))}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
