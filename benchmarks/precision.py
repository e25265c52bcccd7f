"""What bfloat16 changes: grey levels, and cells found, on real tiles.

    python benchmarks/precision.py --shared ../shared [--tiles 4]

Two measurements, one Markdown table each:

1. The full-size model with seeded weights (no trained ones are to be had here) on real tiles, in float32 and
   bfloat16: mean absolute difference in grey levels, share of pixels whose class changes, cells found. Such
   weights make noise with cell-like specks, so the counts say what rounding does to a worst case.
2. The difference so measured (bfloat16 minus float32) added to the maps that the published pretrained model
   made of real tissue: what a change of that size does to real counts.
"""

import argparse
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deepliif_ray.cells import extract_cells
from deepliif_ray.models.checkpoint import Checkpoint
from deepliif_ray.models.deepliif import DeepLIIF
from deepliif_ray.models.networks import GeneratorSpec, build_generator
from deepliif_ray.models.options import resolve_options

UInt8Array = NDArray[np.uint8]
TILE = 512
OFFICIAL = ("34_3", "6_2")
RECORDED = {"translator": "resnet_9blocks-zero-convtranspose", "segmenter": "unet_512"}


@dataclass
class Counts:
    """Cells above the published size threshold in one map."""

    cells: int
    positive: int

    @property
    def index_percent(self) -> float:
        """Positive cells per hundred."""
        return 100 * self.positive / max(1, self.cells)


def load_seeded(shared: Path) -> ModuleType:
    """Import the reference's generator of weights."""
    spec = importlib.util.spec_from_file_location(
        "seeded_weights", shared / "reference" / "seeded_weights.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_model(shared: Path, precision: str) -> DeepLIIF:
    """Return the full-size model with seeded networks and the segmentation weights of the latest model."""
    seeded = load_seeded(shared)
    shapes = json.loads((shared / "reference" / "networks.json").read_text())

    def network(kind: str, seed: int) -> torch.nn.Module:
        built = build_generator(GeneratorSpec("unet_512" if kind == "segmenter" else "resnet_9blocks"))
        wanted = {k: v for k, v in shapes[RECORDED[kind]].items() if k in built.state_dict()}
        state = seeded.seeded_state_dict(wanted, seed)
        built.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        return built.requires_grad_(False).eval()

    options = resolve_options({}, ["G51"], "train_opt.txt")
    segmenters = {0: network("segmenter", 51), 4: network("segmenter", 55)}
    checkpoint = Checkpoint(options, {3: network("translator", 4)}, segmenters, "seeded")
    return DeepLIIF("seeded", checkpoint, torch.device("cpu"), precision)


def real_tiles(shared: Path, count: int) -> dict[str, UInt8Array]:
    """Return real 512-px IHC tiles by name."""
    data = shared / "data"
    files = [data / "deepliif" / "official" / name / "ihc.png" for name in OFFICIAL]
    files += sorted((data / "bcdata").glob("*.png")) + sorted((data / "deepliif" / "large").glob("*.png"))
    tiles = {}
    for file in files[:count]:
        name = file.parent.name if file.stem == "ihc" else f"{file.parent.name}/{file.stem}"
        tiles[name] = np.asarray(Image.open(file).convert("RGB"))[:TILE, :TILE]
    return tiles


def count_cells(seg: UInt8Array, marker: UInt8Array, rgb: UInt8Array) -> Counts:
    """Count cells as published: at 40x, above the size threshold that the map itself gives."""
    found = extract_cells(seg, marker, rgb, resolution="40x")
    area = found.table["area_px"].to_numpy()
    positive = found.table["majority_positive"].to_numpy(zero_copy_only=False)
    counted = area > found.thresholds.size_thresh
    return Counts(int(counted.sum()), int((counted & positive).sum()))


def pixel_classes(seg: UInt8Array) -> NDArray[np.int_]:
    """Return 0 neither, 1 positive, 2 negative for each pixel, by the published rule."""
    red, green, blue = (seg[..., channel].astype(int) for channel in range(3))
    return np.where((red + blue > 120) & (green <= 80), np.where(red >= blue, 1, 2), 0)


def row(*cells: object) -> None:
    """Print one line of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*titles: str) -> None:
    """Print the head of a Markdown table."""
    row(*titles)
    row(*["---"] * len(titles))


def compare_row(name: str, exact: Counts, rough: Counts, before: UInt8Array, after: UInt8Array) -> None:
    """Print how two maps of one tile and their cells differ."""
    row(
        name,
        f"{np.abs(before.astype(int) - after).mean():.2f}",
        f"{100 * (pixel_classes(before) != pixel_classes(after)).mean():.2f}",
        f"{exact.cells} → {rough.cells}",
        f"{exact.positive} → {rough.positive}",
        f"{exact.index_percent:.1f} → {rough.index_percent:.1f}",
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder with reference/ and data/")
    parser.add_argument("--tiles", type=int, default=4, help="number of real tiles")
    arguments = parser.parse_args()

    tiles = real_tiles(arguments.shared, arguments.tiles)
    stack = np.stack(list(tiles.values()))
    exact = make_model(arguments.shared, "float32").infer(stack)
    rough = make_model(arguments.shared, "bfloat16").infer(stack)
    assert exact.marker is not None and rough.marker is not None
    titles = ("tile", "seg, grey levels", "pixels of another class, %", "cells", "positive", "index, %")

    print("\nSeeded model, float32 → bfloat16\n")
    header(*titles)
    for index, name in enumerate(tiles):
        before = count_cells(exact.seg[index], exact.marker[index], stack[index])
        after = count_cells(rough.seg[index], rough.marker[index], stack[index])
        compare_row(name, before, after, exact.seg[index], rough.seg[index])
    marker_change = np.abs(exact.marker.astype(int) - rough.marker).mean()
    print(f"\nMarker: mean absolute difference {marker_change:.2f} grey levels.")

    print("\nPublished model's maps of real tissue, as they are → with bfloat16's difference added\n")
    header(*titles)
    for name in OFFICIAL:
        folder = arguments.shared / "data" / "deepliif" / "official" / name
        rgb, seg, marker = (
            np.asarray(Image.open(folder / f"{kind}.png").convert("RGB")) for kind in ("ihc", "seg", "marker")
        )
        before = count_cells(seg, marker.max(axis=2), rgb)
        for index, source in enumerate(tiles):
            noise = rough.seg[index].astype(int) - exact.seg[index]
            changed = np.clip(seg + noise, 0, 255).astype(np.uint8)
            marker_noise = rough.marker[index].astype(int) - exact.marker[index]
            changed_marker = np.clip(marker.max(axis=2) + marker_noise, 0, 255).astype(np.uint8)
            after = count_cells(changed, changed_marker, rgb)
            compare_row(f"{name} + difference of {source}", before, after, seg, changed)


if __name__ == "__main__":
    main()
