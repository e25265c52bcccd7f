"""The paper's ground truth: a segmentation panel from nuclear instances and the mpIF marker image.

Ghahremani et al. 2022 (Nature Machine Intelligence 4, 401): cells in which the co-registered marker is
expressed are red, the others blue, and outlines are green. The paper had people correct the result; the rule
here is the part that a machine can repeat.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.training.panels.files import UInt8Array, open_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
MIN_CONTRAST = 15.0
"""Grey levels between the means of the two groups of cells, below which no threshold is derived."""
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Truth:
    """A segmentation panel and how its cells were told apart.

    Parameters
    ----------
    seg : numpy.ndarray
        uint8 (H, W, 3): red positive, blue negative, green outlines, black background.
    labels : numpy.ndarray
        int64 (N,): the cells' labels in the mask, ascending.
    values : numpy.ndarray
        float64 (N,): how strongly each expresses the marker, 0–255.
    threshold : float
        Cells with greater values are positive.
    """

    seg: UInt8Array
    labels: NDArray[np.int64]
    values: NDArray[np.float64]
    threshold: float

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Which cells are positive, (N,)."""
        return self.values > self.threshold


def make_truth(
    mask: Labels,
    marker: UInt8Array,
    *,
    threshold: float | None = None,
    percentile: float | None = None,
    width: int = 2,
) -> Truth:
    """Make the segmentation panel of a tile.

    A cell's value is the mean over its pixels of the marker's greatest channel, or a percentile of them:
    a high one for membranous markers, which light up little of a cell. A cell is positive if its value is
    greater than the threshold.

    Parameters
    ----------
    mask : numpy.ndarray
        Integers (H, W): 0 background, and each cell's pixels with a number of its own.
    marker : numpy.ndarray
        uint8 (H, W) or (H, W, 3), brighter where there is more of the marker.
    threshold : float, optional
        0–255. By default derived from the cells of this tile, see `otsu`; give one for tiles that may have
        cells of one kind only, and the same for all tiles that were imaged alike.
    percentile : float, optional
        0–100; by default the mean is taken.
    width : int
        Pixels of outline, inside each cell: those within this distance of another cell or of background.
        Touching cells are kept apart; a cell that is nowhere wider than twice this vanishes in its outline.

    Raises
    ------
    ConfigError
        An array has another shape or dtype, an option is out of range, the mask does not tell cells apart, or
        the cells do not fall into two groups.
    """
    _check(mask, marker)
    if threshold is not None and not 0 <= threshold <= 255:
        raise ConfigError(f"threshold is {threshold}; 0 to 255 was expected")
    if percentile is not None and not 0 <= percentile <= 100:
        raise ConfigError(f"percentile is {percentile}; 0 to 100 was expected")
    if width < 1:
        raise ConfigError(f"width is {width}; at least 1 px keeps touching cells apart")
    inside = mask != 0
    labels, cell = np.unique(mask[inside], return_inverse=True)
    if len(labels) == 1 and ndimage.label(inside)[1] > 1:
        raise ConfigError("the mask has one label for cells that lie apart; number its cells first")
    grey = marker if marker.ndim == 2 else marker.max(axis=2)
    values = _values(grey[inside], cell, len(labels), percentile)
    chosen = otsu(values) if threshold is None and len(labels) else float(threshold or 0.0)
    seg = np.zeros((*mask.shape, 3), np.uint8)
    seg[inside] = np.where((values > chosen)[cell, None], np.array(RED, np.uint8), np.array(BLUE, np.uint8))
    seg[outlines(mask, width)] = GREEN
    return Truth(seg, labels.astype(np.int64), values, chosen)


def _check(mask: Labels, marker: UInt8Array) -> None:
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise ConfigError(f"the mask is {mask.dtype} {mask.shape}; integers (H, W) were expected")
    if marker.dtype != np.uint8 or marker.shape[:2] != mask.shape or marker.shape[2:] not in ((), (3,)):
        raise ConfigError(
            f"the marker image is {marker.dtype} {marker.shape}; uint8 (H, W) or (H, W, 3) of the mask's "
            f"size {mask.shape} was expected"
        )


def _values(
    pixels: UInt8Array, cell: NDArray[np.intp], count: int, percentile: float | None
) -> NDArray[np.float64]:
    """Return each cell's value; ``pixels`` are of the cells numbered in ``cell``."""
    if not count:
        return np.empty(0)
    if percentile is None:
        mean: NDArray[np.float64] = np.bincount(cell, pixels) / np.bincount(cell)
        return mean
    order = np.argsort(cell, kind="stable")
    ends = np.cumsum(np.bincount(cell))[:-1]
    return np.array([np.percentile(part, percentile) for part in np.split(pixels[order], ends)])


def outlines(mask: Labels, width: int) -> NDArray[np.bool_]:
    """Return which pixels of cells lie within ``width`` px of another label or of background.

    The image's edge is no outline: a cell that it cuts goes on beyond.
    """
    reach = np.arange(-width, width + 1)
    disk = reach[:, None] ** 2 + reach**2 <= width**2
    least = ndimage.minimum_filter(mask, footprint=disk, mode="nearest")
    greatest = ndimage.maximum_filter(mask, footprint=disk, mode="nearest")
    found: NDArray[np.bool_] = (mask != 0) & (least != greatest)
    return found


def otsu(values: NDArray[np.float64]) -> float:
    """Return the threshold that best parts ``values`` (0–255) in two (Otsu 1979), by their square roots.

    Fluorescence is counted light, whose noise grows with the root of its strength; the root makes it even
    (Anscombe 1948). Of all splits of the sorted roots, the one with the greatest variance between the groups
    is taken, ``n₁ n₂ (m₂ - m₁)²`` with sizes n and means m; the threshold is the square of what lies midway
    between the roots it parts.

    Raises
    ------
    ConfigError
        There are no two groups whose mean values are `MIN_CONTRAST` apart.
    """
    ordered = np.sort(values)
    roots = np.sqrt(ordered)
    low = np.arange(1, len(roots))
    high = len(roots) - low
    sums = np.cumsum(roots)[:-1]
    spread = low * high * ((roots.sum() - sums) / high - sums / low) ** 2
    split = int(np.argmax(spread)) + 1 if len(spread) else 0
    if not split or ordered[split:].mean() - ordered[:split].mean() < MIN_CONTRAST:
        raise ConfigError(
            "the marker does not part the cells in two groups, so no threshold can be derived; give one"
        )
    return float((roots[split - 1] + roots[split]) / 2) ** 2


def read_mask(url: str) -> Labels:
    """Read an instance mask: a grey PNG or TIFF of 8, 16 or 32 bits, or a NumPy file (``.npy``).

    Raises
    ------
    ConfigError
        It cannot be read, or its pixels are no numbers of cells.
    """
    if url.lower().endswith(".npy"):
        try:
            mask: Labels = np.load(io.BytesIO(storage.read_bytes(url)), allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ConfigError(f"{url}: not a NumPy array that can be read ({error})") from error
    else:
        mask = np.asarray(open_image(url))
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise ConfigError(
            f"{url}: is {mask.dtype} {mask.shape}; one whole number a pixel was expected, 0 outside cells"
        )
    return mask


def write_truth(
    mask: str,
    marker: str,
    output: str,
    *,
    threshold: float | None = None,
    percentile: float | None = None,
    width: int = 2,
) -> Truth:
    """Read a mask (see `read_mask`) and a marker image, write the segmentation panel to ``output`` as PNG.

    The options are those of `make_truth`.

    Raises
    ------
    ConfigError
        As `make_truth`, or a file cannot be used; names the files.
    StorageError
        A file cannot be read or written.
    """
    image = open_image(marker)
    if image.mode not in ("L", "RGB"):
        raise ConfigError(f"{marker}: its pixels are {image.mode}; 8-bit grey or RGB was expected")
    try:
        truth = make_truth(
            read_mask(mask), np.asarray(image), threshold=threshold, percentile=percentile, width=width
        )
    except ConfigError as error:
        raise ConfigError(f"{mask}, {marker}: {error}") from error
    data = io.BytesIO()
    Image.fromarray(truth.seg).save(data, "PNG")
    storage.write_bytes(output, data.getvalue())
    return truth
