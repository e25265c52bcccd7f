"""A model run on a whole field, and the cells that the published rules find in its maps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.cells import extract_cells
from deepliif_ray.cells.labels import classify, label_core
from deepliif_ray.errors import ConfigError
from deepliif_ray.models import Model
from deepliif_ray.native import NativeView
from deepliif_ray.published import SEG_THRESH
from deepliif_ray.scoring.calls import call_cells
from deepliif_ray.slides.appearance import Appearance
from deepliif_ray.slides.contrast import contrast_for
from deepliif_ray.slides.grid import TileGrid
from deepliif_ray.slides.plan import POSSIBLE_MPP, resolution_name, tile_size_for
from deepliif_ray.slides.quality import FOCUS_MPP, PATCH_UM, shrunk
from deepliif_ray.slides.tissue import is_empty

UInt8Array = NDArray[np.uint8]
TILE = {"40x": 512, "20x": 256, "10x": 128}
NOMINAL_MPP = {"40x": 0.25, "20x": 0.5, "10x": 1.0}
"""µm per pixel of the published resolutions."""
_BATCH = 8


@dataclass(frozen=True)
class Rules:
    """How cells are found and counted in a segmentation map.

    Attributes
    ----------
    resolution : {'40x', '20x', '10x'}
    seg_thresh : int
        Red plus blue of a cell's pixel exceed it.
    size_thresh : int, optional
        Cells count when larger than this many pixels of the map; its published default when not given.
    marker_thresh : int, 'default' or None
        Cells whose marker value exceeds it are positive whatever their pixels say; ``default``: the published
        default of each image; None: off, as published.
    mpp : float, optional
        µm per pixel. The sizes that decide are then areas, and ``resolution`` says nothing.

    Raises
    ------
    ConfigError
        The resolution is none of these, or at this ``mpp`` nuclei cannot be told.
    """

    resolution: str = "40x"
    seg_thresh: int = SEG_THRESH
    size_thresh: int | None = None
    marker_thresh: int | str | None = None
    mpp: float | None = None

    def __post_init__(self) -> None:
        if self.resolution not in TILE:
            raise ConfigError(f"resolution is {self.resolution!r}; use one of {', '.join(TILE)}")
        if self.mpp is not None:
            check_mpp(self.mpp, "mpp")

    @property
    def pixel_um(self) -> float:
        """Side of a pixel, µm: as given, else that of the resolution."""
        return NOMINAL_MPP[self.resolution] if self.mpp is None else self.mpp

    @property
    def nearest_resolution(self) -> str:
        """The published resolution that is nearest."""
        return resolution_name(tile_size_for(self.pixel_um))

    def of(self, model: Model) -> "Rules":
        """Return the rules for this model's maps: without a scale of its own, those of a resolution."""
        if model.native.mpp is not None:
            return replace(self, mpp=self.pixel_um)
        return replace(self, resolution=self.nearest_resolution, mpp=None)


def check_mpp(value: float, where: str) -> None:
    """Refuse a pixel size at which nuclei cannot be told.

    Raises
    ------
    ConfigError
        It is not within 0.05 to 4 µm; the message begins with ``where``.
    """
    low, high = POSSIBLE_MPP
    if not low <= value <= high:
        raise ConfigError(
            f"{where}: {value:g} µm per pixel is outside {low:g} to {high:g}, where nuclei can be told; give "
            "the true size of a pixel"
        )


@dataclass(frozen=True)
class FieldMaps:
    """What a model made of a field of H×W pixels: as `Inference`, for one image."""

    seg: UInt8Array
    marker: UInt8Array | None
    modalities: dict[str, UInt8Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Cells:
    """The counted cells of a map.

    Attributes
    ----------
    classes : ndarray of uint8, shape (H, W)
        Pixels by the published rule: 0 neither, 1 positive, 2 negative.
    labels : ndarray of int32, shape (H, W)
        0 background, cell ``i`` of the arrays below is ``i + 1``; holes are filled.
    xy : ndarray of float64, shape (n, 2)
        Centroids, px.
    positive : ndarray of bool, shape (n,)
    """

    classes: UInt8Array
    labels: NDArray[np.int32]
    xy: NDArray[np.float64]
    positive: NDArray[np.bool_]

    def labels_of(self, positive: bool) -> NDArray[np.int32]:
        """Return ``labels`` with the cells of the other class set to 0."""
        keep = np.concatenate([[False], self.positive == positive])
        return np.where(keep[self.labels], self.labels, 0).astype(np.int32)


def infer_field(
    model: Model,
    rgb: UInt8Array,
    *,
    resolution: str = "40x",
    mpp: float | None = None,
    modalities: Sequence[str] = (),
) -> FieldMaps:
    """Run a model on an image of any size, as published software runs a single field.

    Tiles of 512 px (256 at 20x, 128 at 10x) overlap by a quarter on each side; a field smaller than a tile is
    continued by mirroring. With ``mpp`` they are as large as the engine cuts them, so that a model with a
    scale of its own sees it: 800 px at 0.16 µm for one of 512 px at 0.25 µm. Tiles that published software
    skips as empty are black, their marker is the model's background. A model that knows one strength of
    hematoxylin gets the field with it, measured on all of it.

    Parameters
    ----------
    model : Model
    rgb : ndarray of uint8, shape (H, W, 3)
    resolution : {'40x', '20x', '10x'}
    mpp : float, optional
        µm per pixel; ``resolution`` says nothing then.
    modalities : sequence of str
        Names out of ``model.modality_names`` to return as well.
    """
    height, width = rgb.shape[:2]
    size = tile_side(model, resolution, mpp)
    padded = np.pad(
        shown(model.native, rgb, mpp or NOMINAL_MPP[resolution]),
        ((0, max(0, size - height)), (0, max(0, size - width)), (0, 0)),
        mode="symmetric",
    )
    seg = np.zeros_like(rgb)
    marker = np.full((height, width), model.background_marker, np.uint8) if model.has_marker else None
    images = {name: np.zeros_like(rgb) for name in modalities}
    grid = TileGrid(width, height, size, size // 4)
    pixels = {tile: padded[tile.y : tile.y + size, tile.x : tile.x + size] for tile in grid}
    todo = [tile for tile, image in pixels.items() if not is_empty(image)]
    for begin in range(0, len(todo), _BATCH):
        batch = todo[begin : begin + _BATCH]
        result = model.infer(np.stack([pixels[tile] for tile in batch]), modalities)
        for i, tile in enumerate(batch):
            x0, y0, x1, y1 = tile.core
            here = np.s_[y0:y1, x0:x1]
            there = np.s_[y0 - tile.y : y1 - tile.y, x0 - tile.x : x1 - tile.x]
            seg[here] = result.seg[i][there]
            if marker is not None and result.marker is not None:
                marker[here] = result.marker[i][there]
            for name, image in images.items():
                image[here] = result.modalities[name][i][there]
    return FieldMaps(seg, marker, images)


def tile_side(model: Model, resolution: str = "40x", mpp: float | None = None) -> int:
    """Return the side of the tiles, px, that a model is shown of a field; see `infer_field`."""
    if mpp is None:
        return TILE[resolution]
    native = model.native
    return tile_size_for(mpp) if native.mpp is None else round(native.tile * native.mpp / mpp)


def shown(native: NativeView, rgb: UInt8Array, mpp: float) -> UInt8Array:
    """Return a field as a model is to see it: with the glass and the hematoxylin that it knows.

    Both are measured on all of the field, as `deepliif_ray.slides.plan_slide` does on patches of a slide.

    Parameters
    ----------
    native : NativeView
        What the model knows.
    rgb : ndarray of uint8, shape (H, W, 3)
    mpp : float
        Micrometres per pixel.
    """
    if not native.changes_colour:
        return rgb
    factor = max(1, round(FOCUS_MPP / mpp))
    half, patch = shrunk(rgb, factor), max(1, round(PATCH_UM / mpp) // factor)
    starts = [range(0, side, patch) for side in half.shape[:2]]
    patches = [half[y : y + patch, x : x + patch] for y in starts[0] for x in starts[1]]
    appearance = Appearance.measure(patches)
    contrast = contrast_for(native, appearance.counterstain, appearance.white)
    return rgb if contrast is None else contrast.apply(rgb)


def find_cells(seg: UInt8Array, marker: UInt8Array | None = None, rules: Rules | None = None) -> Cells:
    """Find the cells of a segmentation map and count them by the published rules.

    Parameters
    ----------
    seg : ndarray of uint8, shape (H, W, 3)
        Red positive, blue negative, green boundary.
    marker : ndarray of uint8, shape (H, W) or (H, W, 3), optional
    rules : Rules, optional
        The published defaults when not given.
    """
    rules = rules or Rules()
    extracted = extract_cells(
        seg, marker, resolution=rules.resolution, mpp=rules.mpp, seg_thresh=rules.seg_thresh
    )
    table, thresholds = extracted.table, extracted.thresholds
    given = rules.marker_thresh
    counted, positive = call_cells(
        table["area_px"].to_numpy(),
        table["majority_positive"].to_numpy(),
        table["marker_max"].to_numpy() if marker is not None else None,
        size_thresh=thresholds.size_thresh if rules.size_thresh is None else rules.size_thresh,
        marker_thresh=thresholds.marker_thresh if given == "default" else _number(given),
    )
    classes = classify(np.ascontiguousarray(seg), rules.seg_thresh)
    labels, _, _, _ = label_core(classes, np.ones(4, dtype=bool))
    areas = np.bincount(labels.ravel())
    large = np.inf if thresholds.large_noise_thresh is None else thresholds.large_noise_thresh
    kept = (areas > thresholds.noise_thresh) & (areas < large)
    kept[0] = False
    # Both count from the first pixel in row order: the cells of the table are the labels kept, in order.
    number = np.zeros(len(areas), dtype=np.int32)
    number[kept] = np.where(counted, np.cumsum(counted), 0)
    xy = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()])[counted]
    return Cells(classes, number[labels], xy, positive[counted])


def _number(value: int | str | None) -> int | None:
    if value is None or isinstance(value, int):
        return value
    raise ConfigError(f"marker_thresh is {value!r}; use a number, 'default' or None")
