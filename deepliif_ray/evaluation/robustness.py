"""How far the index and the cells of a field move when its picture changes and its tissue does not.

No truth is needed: each changed picture is compared with the field as it is.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation import perturbations
from deepliif_ray.evaluation.detection import index_percent
from deepliif_ray.evaluation.fields import Rules, check_mpp, find_cells, infer_field
from deepliif_ray.evaluation.perturbations import UInt8Array
from deepliif_ray.evaluation.results import number_of, span
from deepliif_ray.evaluation.sweep_plot import Sweep, draw_sweeps
from deepliif_ray.evaluation.sweeps import SWEEPS
from deepliif_ray.evaluation.truth import list_images, read_image_of
from deepliif_ray.models import Model, load_model
from deepliif_ray.published import SEG_THRESH

RIM_UM = 8.0
"""What is left of a square around the circle in it: about a nucleus."""


@dataclass(frozen=True)
class Reading:
    """What a model counts in a picture: cells, and the percentage of positive ones (None without a cell)."""

    cells: int
    index_percent: float | None


@dataclass(frozen=True)
class Shift:
    """A changed picture of a field beside the field.

    Attributes
    ----------
    field, sweep, step : str
    before, after : Reading
    """

    field: str
    sweep: str
    step: str
    before: Reading
    after: Reading

    @property
    def index_points(self) -> float | None:
        """Index after minus index before, percentage points; None if one has no cell."""
        one, other = self.before.index_percent, self.after.index_percent
        return None if one is None or other is None else other - one

    @property
    def cells_percent(self) -> float | None:
        """Change of the number of cells, % of those before; None if there was none."""
        return 100 * (self.after.cells / self.before.cells - 1) if self.before.cells else None

    def as_row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "image": self.field,
            "sweep": self.sweep,
            "step": self.step,
            "cells_before": self.before.cells,
            "cells": self.after.cells,
            "index_percent_before": self.before.index_percent,
            "index_percent": self.after.index_percent,
            "index_shift_points": self.index_points,
            "cells_change_percent": self.cells_percent,
        }


@dataclass(frozen=True)
class Robustness:
    """All shifts of a model on a folder of fields.

    Attributes
    ----------
    images : str
        Where the fields were read.
    model, digest, precision : str
        See `deepliif_ray.models.Model`.
    rules : Rules
        How cells were counted.
    mpp : dict of str to float
        µm per pixel of each field.
    shifts : tuple of Shift
    """

    images: str
    model: str
    digest: str
    precision: str
    rules: Rules
    mpp: Mapping[str, float]
    shifts: tuple[Shift, ...]

    @property
    def by_field(self) -> pa.Table:
        """One row a field and step."""
        return pa.Table.from_pylist([shift.as_row() for shift in self.shifts])

    @property
    def table(self) -> pa.Table:
        """One row a step: mean of the fields' absolute shifts, and the farthest one with its sign."""
        steps: dict[tuple[str, str], list[Shift]] = {}
        for shift in self.shifts:
            steps.setdefault((shift.sweep, shift.step), []).append(shift)
        rows: list[dict[str, Any]] = []
        for (sweep, step), shifts in steps.items():
            row: dict[str, Any] = {"sweep": sweep, "step": step, "fields": len(shifts)}
            for name, values in (
                ("index_shift_points", [shift.index_points for shift in shifts]),
                ("cells_change_percent", [shift.cells_percent for shift in shifts]),
            ):
                known = [value for value in values if value is not None]
                row[f"{name}_mean"] = sum(map(abs, known)) / len(known) if known else None
                row[f"{name}_most"] = max(known, key=abs) if known else None
            rows.append(row)
        return pa.Table.from_pylist(rows)

    @property
    def described(self) -> str:
        """One line on the fields, and on what the table has."""
        return (
            f"{number_of(self.mpp, 'field')} at {span(self.mpp.values())} µm per pixel, each step beside the "
            "field as it is: mean of absolute shifts, and the farthest"
        )

    def as_json(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "images": self.images,
            "model": {"name": self.model, "digest": self.digest, "precision": self.precision},
            "rules": vars(self.rules),
            "mpp": dict(self.mpp),
            "steps": self.table.to_pylist(),
            "fields": self.by_field.to_pylist(),
        }


@dataclass(frozen=True)
class SweepProgress:
    """How far a measurement is: pictures done, of how many, and what is being done."""

    done: int
    total: int
    field: str
    sweep: str

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.done / self.total


def measure_robustness(
    model: str | Model,
    images: str,
    output: str | None = None,
    *,
    resolution: str = "40x",
    mpp: float | None = None,
    device: str | None = None,
    precision: str | None = None,
    seg_thresh: int = SEG_THRESH,
    size_thresh: int | None = None,
    marker_thresh: int | str | None = None,
    sweeps: Sequence[str] = tuple(SWEEPS),
    watch: Callable[[SweepProgress], object] | None = None,
) -> Robustness:
    """Measure how far a model's index and cells move when the pictures of fields change.

    Parameters
    ----------
    model : str or Model
        What `deepliif_ray.models.load_model` takes, or a model at hand.
    images : str
        URL of a folder of images. Truth is not needed; where there is some, as
        `deepliif_ray.evaluation.truth.read_truths` lays it out, it is not looked at.
    output : str, optional
        URL of a folder to write ``robustness.json`` and ``robustness.svg`` to.
    resolution : {'40x', '20x', '10x'}
        Of images whose pixel size is not known: they count as 0.25, 0.5 or 1 µm per pixel.
    mpp : float, optional
        µm per pixel of the images that no ``mpp.csv`` in the folder lists.
    device, precision : str, optional
        For a model given by name; see `load_model`.
    seg_thresh, size_thresh, marker_thresh
        See `deepliif_ray.evaluation.fields.Rules`; ``size_thresh`` in pixels of the images as they are.
    sweeps : sequence of str
        Which of `SWEEPS`.
    watch : callable, optional
        Called before each picture.

    Raises
    ------
    ConfigError
        An option or an image cannot be used, or no image has a cell.
    ModelError
        The model cannot be loaded or run.
    StorageError
        A file cannot be read or written.
    """
    rules = Rules(resolution, seg_thresh, size_thresh, marker_thresh)
    if mpp is not None:
        check_mpp(mpp, "mpp")
    if unknown := [name for name in sweeps if name not in SWEEPS]:
        raise ConfigError(f"sweep {', '.join(unknown)} is not known; use {', '.join(SWEEPS)}")
    listed = list_images(images, rules.pixel_um if mpp is None else mpp)
    loaded = load_model(model, device, precision) if isinstance(model, str) else model
    steps = [step for name in sweeps for step in SWEEPS[name]]
    total = len(listed) * len(steps)
    mpps: dict[str, float] = {}
    shifts: list[Shift] = []
    for image in listed:
        assert image.mpp is not None
        mpps[image.name] = image.mpp
        rgb = read_image_of(image)
        its = replace(rules, mpp=image.mpp)
        before = count(loaded, rgb, its)
        within = None
        for step in steps:
            if watch is not None:
                watch(SweepProgress(len(shifts), total, image.name, step.sweep))
            if step.circle and within is None:
                within = count(loaded, perturbations.inscribed(rgb), its, circle=True)
            after = count(
                loaded, step.change(rgb, image.mpp), _at(its, step.mpp or image.mpp), circle=step.circle
            )
            compared = within if step.circle and within is not None else before
            shifts.append(Shift(image.name, step.sweep, step.name, compared, after))
    if not any(shift.before.cells for shift in shifts):
        raise ConfigError(
            f"{images}: {loaded.name} finds no cell in any image as it is, so there is nothing to compare; "
            "give fields of tissue, and the size of their pixels (mpp)"
        )
    found = Robustness(images, loaded.name, loaded.digest, loaded.precision, rules, mpps, tuple(shifts))
    if output is not None:
        text = json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n"
        storage.write_bytes(storage.join(output, "robustness.json"), text.encode())
        storage.write_bytes(storage.join(output, "robustness.svg"), draw(found).encode())
    return found


def count(model: Model, rgb: UInt8Array, rules: Rules, *, circle: bool = False) -> Reading:
    """Return what a model counts in a picture, or in the circle that fits into a square one.

    The circle ends 8 µm before the square, so that no cell in it is cut off by a side of one square and not
    of another.

    Parameters
    ----------
    model : Model
    rgb : ndarray of uint8, shape (H, W, 3)
    rules : Rules
    circle : bool
    """
    maps = infer_field(model, rgb, resolution=rules.resolution, mpp=rules.mpp)
    cells = find_cells(maps.seg, maps.marker, rules.of(model))
    positive = cells.positive
    if circle:
        middle = len(rgb) / 2
        radius = max(middle - RIM_UM / rules.pixel_um, middle / 2)
        positive = positive[np.hypot(*(cells.xy - (middle - 0.5)).T) < radius]
    return Reading(len(positive), index_percent(positive) if len(positive) else None)


def _at(rules: Rules, mpp: float) -> Rules:
    """Return rules for the same field at another pixel size; a size in pixels stays the same area."""
    assert rules.mpp is not None
    size = rules.size_thresh
    area = None if size is None else round(size * (rules.mpp / mpp) ** 2)
    return replace(rules, mpp=mpp, size_thresh=area)


def draw(found: Robustness) -> str:
    """Return the shifts of all fields as an SVG picture."""
    panels = [
        (sweep, [step.name for step in steps], [shift for shift in found.shifts if shift.sweep == sweep])
        for sweep, steps in SWEEPS.items()
    ]
    title = f"{found.model}: {number_of(found.mpp, 'field')}, each changed picture beside the field as it is"
    return draw_sweeps(
        title,
        [
            Sweep(
                sweep,
                steps,
                [(steps.index(s.step), s.index_points) for s in shifts if s.index_points is not None],
                [(steps.index(s.step), s.cells_percent) for s in shifts if s.cells_percent is not None],
            )
            for sweep, steps, shifts in panels
            if shifts
        ],
    )
