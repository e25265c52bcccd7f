"""Validation while training: how far predicted panels are from the true ones, on whole tiles."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deepliif_ray.training.objectives.base import Objective
from deepliif_ray.training.panels.files import IHC, SEG, Panels, UInt8Array
from deepliif_ray.training.run.batches import Tiles, to_batch, to_images
from deepliif_ray.training.run.team import Team

MULTIPLE = 32
"""Whole tiles are cut to sides that networks with five halvings take."""
_GRID_SIDE = 256


def _cut(tile: Panels, side: int | None = None) -> Panels:
    """Return the middle of ``tile``, of sides that networks take."""
    height, width = (min(n // MULTIPLE * MULTIPLE, side or n) for n in tile.ihc.shape[:2])
    y, x = (tile.ihc.shape[0] - height) // 2, (tile.ihc.shape[1] - width) // 2

    def cut(image: UInt8Array) -> UInt8Array:
        return image[y : y + height, x : x + width]

    return replace(tile, ihc=cut(tile.ihc), targets={k: cut(v) for k, v in tile.targets.items()})


def _predict(objective: Objective, tile: Panels, device: torch.device) -> dict[str, UInt8Array]:
    predicted = objective.predict(to_batch([tile], objective.targets, device))
    return {name: to_images(image)[0] for name, image in predicted.items()}


def _truth(tile: Panels, name: str) -> UInt8Array:
    return tile.ihc if name == IHC else tile.targets[name]


def classes(seg: UInt8Array) -> NDArray[np.int8]:
    """Return 0 where there is no cell, 1 in positive and 2 in negative ones (published rule).

    A cell's pixel has red + blue > 120 and green ≤ 80, and is positive where red ≥ blue.
    """
    red, green, blue = (seg[..., c].astype(np.int16) for c in range(3))
    cell = (red + blue > 120) & (green <= 80)
    return np.where(cell, np.where(red >= blue, 1, 2), 0).astype(np.int8)


def _sums(predicted: Mapping[str, UInt8Array], tile: Panels) -> dict[str, float]:
    """Return what adds up over tiles: absolute differences and areas, each with its count."""
    sums: dict[str, float] = {}
    for name, image in predicted.items():
        truth = _truth(tile, name)
        difference = np.abs(image.astype(np.int16) - truth).sum(dtype=np.int64)
        sums |= {f"l1_{name}": float(difference), f"n_{name}": float(image.size)}
        if name == SEG:
            ours, theirs = classes(image), classes(truth)
            for number, label in ((1, "positive"), (2, "negative")):
                both = np.count_nonzero((ours == number) & (theirs == number))
                either = np.count_nonzero(ours == number) + np.count_nonzero(theirs == number)
                sums |= {f"both_{label}": float(both), f"either_{label}": float(either)}
    return sums


def _metrics(sums: Mapping[str, float]) -> dict[str, float]:
    metrics = {
        name: value / sums["n_" + name.removeprefix("l1_")] / 255.0
        for name, value in sums.items()
        if name.startswith("l1_")
    }
    for label in ("positive", "negative"):
        if f"both_{label}" in sums:
            areas = sums[f"either_{label}"]
            metrics[f"dice_{label}"] = 2 * sums[f"both_{label}"] / areas if areas else 1.0
    if "dice_positive" in metrics:
        metrics["dice"] = (metrics["dice_positive"] + metrics["dice_negative"]) / 2
    return metrics


def validate(objective: Objective, tiles: Tiles, device: torch.device, team: Team) -> dict[str, float]:
    """Measure predictions on whole tiles, shared among the processes.

    Returns
    -------
    dict of str to float
        ``l1_NAME``, mean absolute difference of each predicted panel as 8-bit image, of 255 (0 to 1);
        ``dice_positive``, ``dice_negative`` (Dice of each class's pixels over all tiles together, 1 where
        there are none) and ``dice``, their mean. The same on every process and for any number of them.
    """
    sums: dict[str, float] = {}
    mine = []
    for index in range(team.rank, len(tiles), team.size):
        tile = _cut(tiles.get(index))
        mine.append(_sums(_predict(objective, tile, device), tile))
    for part in (found for parts in team.gather(mine) for found in parts):
        # All are whole numbers, which add up exactly in any order.
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return _metrics(sums)


def sample_grid(objective: Objective, tiles: Sequence[Panels], device: torch.device) -> bytes:
    """Return a PNG picture: a row for each tile: the IHC, then predicted and true image of each panel."""
    rows = []
    for whole in tiles:
        tile = _cut(whole, _GRID_SIDE)
        row = [tile.ihc]
        for name, image in _predict(objective, tile, device).items():
            row += [image, _truth(tile, name)]
        row = [np.pad(i, [(0, _GRID_SIDE - n) for n in i.shape[:2]] + [(0, 0)]) for i in row]
        rows.append(np.concatenate(row, axis=1))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, "PNG")
    return buffer.getvalue()
