"""Time `extract_cells` on 4 megapixels of dense tissue, on one core.

    python benchmarks/cells.py [--image SEG.png --marker MARKER.png --ihc IHC.png]

Without images a map of touching discs is made, about 9,000 cells.
"""

import argparse
import time

import numpy as np
from PIL import Image

from deepliif_ray.cells import extract_cells

SIDE = 2048


def _tiled(path: str) -> np.ndarray:
    image = np.asarray(Image.open(path).convert("RGB"))
    repeats = (-(-SIDE // image.shape[0]), -(-SIDE // image.shape[1]), 1)
    return np.ascontiguousarray(np.tile(image, repeats)[:SIDE, :SIDE])


def _synthetic() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot(y % 21 - 10, x % 21 - 10) + rng.normal(0, 0.6, (SIDE, SIDE))
    seg = np.zeros((SIDE, SIDE, 3), np.uint8)
    positive = ((y // 21) * 31 + (x // 21) * 17) % 3 == 0
    seg[radius < 9] = (0, 0, 220)
    seg[(radius < 9) & positive] = (220, 0, 0)
    return seg, rng.integers(0, 256, seg.shape[:2], np.uint8), rng.integers(0, 256, seg.shape, np.uint8)


def main() -> None:
    """Print the best of five runs for several core sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image")
    parser.add_argument("--marker")
    parser.add_argument("--ihc")
    arguments = parser.parse_args()
    if arguments.image:
        seg, marker, ihc = (_tiled(p) for p in (arguments.image, arguments.marker, arguments.ihc))
    else:
        seg, marker, ihc = _synthetic()
    extract_cells(seg[:64, :64], marker[:64, :64], ihc[:64, :64], core=32)  # compile
    print("| core | cells | seconds |\n|---|---|---|")
    for core in (None, 896, 448, 224):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            cells = extract_cells(seg, marker, ihc, core=core).table.num_rows
            times.append(time.perf_counter() - start)
        print(f"| {core or 'whole'} | {cells} | {min(times):.3f} |")


if __name__ == "__main__":
    main()
