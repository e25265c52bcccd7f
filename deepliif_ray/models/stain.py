"""Classical engine ``stain``: color deconvolution, thresholds and watershed; no weights, no training.

Stains are separated after Ruifrok & Johnston 2001 with scikit-image's hematoxylin–eosin–DAB matrix. Nuclei
are what absorbs more red light than its surroundings (both hematoxylin and dense DAB do, pale DAB in the
cytoplasm hardly does); brown and blue ones are found apart, so that touching nuclei of different classes stay
two. Touching nuclei of one class are split by a watershed from the peaks of distance and density.

Every threshold is fixed and every filter is small, so that overlapping tiles agree where they overlap. It is
for nuclear markers (Ki67, TP53, …) and a baseline to beat, not a replacement for a trained model.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import hed_from_rgb
from skimage.segmentation import watershed

from deepliif_ray.models.base import Inference, UInt8Array, check_tiles
from deepliif_ray.models.local_contrast import ABSORBANCE, background, threshold
from deepliif_ray.native import NativeView

VERSION = 2
WORK_SIZE = 256
"""Side in px at which nuclei are found; a tile is taken for a field of 512 px at 40x, whatever its size."""
MARKER_PER_OD = 85.0
"""Marker value of one natural unit of DAB optical density: an optical density of 3 is 255."""
BACKGROUND_MARKER = 10
POSITIVE, NEGATIVE, BOUNDARY = (255, 0, 0), (0, 0, 255), (0, 255, 0)

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
_DAB_FROM_OD: FloatArray = hed_from_rgb[:, 2].astype(np.float32)
_DAB_OF_VALUE: FloatArray = ABSORBANCE[:, None] * _DAB_FROM_OD


@dataclass(frozen=True)
class StainParameters:
    """What the engine's results depend on. Lengths are px at the work size (0.5 µm), densities natural.

    Parameters
    ----------
    smooth : float
        Standard deviation of the Gaussian that removes noise and texture.
    background_radius : int
        Half the window in which the lowest density is taken for background.
    red_cap, dab_cap : float
        Densities above are cut, so that saturated nuclei do not outshine their neighbours.
    red_contrast : float
        Least red density of a nucleus above its background.
    red_share : float
        Least share of the highest contrast nearby: cuts the blurred rim of dark nuclei.
    dab_contrast, dab_share : float
        The same for the DAB density of a positive nucleus.
    share_radius : int
        Half the window that "nearby" means.
    positive_dab : float
        Least mean DAB density above background of a positive nucleus.
    peak_smooth, peak_radius : float, int
        Smoothing of the landscape, and half the least distance between two nuclei's peaks.
    peak_density : float
        Px of distance from the edge that one unit of density is worth in the landscape.
    negative_area, positive_area : int
        Least area of a nucleus in px.
    """

    smooth: float = 0.9
    background_radius: int = 14
    red_cap: float = 1.0
    dab_cap: float = 2.5
    red_contrast: float = 0.11
    red_share: float = 0.3
    dab_contrast: float = 0.7
    dab_share: float = 0.45
    share_radius: int = 8
    positive_dab: float = 0.7
    peak_smooth: float = 2.0
    peak_radius: int = 5
    peak_density: float = 5.0
    negative_area: int = 70
    positive_area: int = 45


class Stain:
    """The classical engine behind the interface of `deepliif_ray.models.Model`.

    Parameters
    ----------
    modalities : sequence of str
        Must be empty: this engine has no modalities.
    parameters : StainParameters
        Thresholds and filter sizes.
    """

    name = "stain"
    device = "cpu"
    precision = "float32"
    modality_names: tuple[str, ...] = ()
    background_marker = BACKGROUND_MARKER
    has_marker = True
    native = NativeView(mpp=0.25, tile=512, od=0.139)
    """Its ``od`` is what `slides.contrast` measures on the paler of two training strips (0.196 and 0.139)."""

    def __init__(self, modalities: Sequence[str] = (), parameters: StainParameters | None = None) -> None:
        self.parameters = parameters or StainParameters()
        check_tiles(np.empty((0, 1, 1, 3), np.uint8), modalities, self.modality_names, self.name)
        text = json.dumps({"version": VERSION, **asdict(self.parameters)}, sort_keys=True)
        self.digest = hashlib.sha256(f"stain {text}".encode()).hexdigest()[:32]

    def infer(self, tiles: UInt8Array, modalities: Sequence[str] = ()) -> Inference:
        """Return segmentation and marker map of ``tiles``, uint8 RGB (N, H, W, 3).

        Raises
        ------
        ConfigError
            ``tiles`` has another shape or dtype, or a modality is asked for.
        """
        check_tiles(tiles, modalities, self.modality_names, self.name)
        seg = np.zeros(tiles.shape, np.uint8)
        marker = np.empty(tiles.shape[:3], np.uint8)
        for index, tile in enumerate(tiles):
            nuclei, positive = find_nuclei(_to_work_size(tile), self.parameters)
            _draw(nuclei, positive, seg[index])
            marker[index] = np.clip(dab_density(tile) * MARKER_PER_OD, 0, 255)
        return Inference(seg, marker)


def dab_density(rgb: UInt8Array) -> FloatArray:
    """Return the DAB density (natural units) of each pixel of ``rgb`` (H, W, 3), float32 (H, W).

    It is ``skimage.color.rgb2hed(rgb)[..., 2] * ln(1e6)``, but not cut at 0; values of 0 count as 1.
    """
    red, green, blue = _DAB_OF_VALUE.T
    density: FloatArray = red[rgb[..., 0]] + green[rgb[..., 1]] + blue[rgb[..., 2]]
    return density


def find_nuclei(rgb: UInt8Array, parameters: StainParameters) -> tuple[NDArray[np.int32], BoolArray]:
    """Find nuclei in an image at the work resolution.

    Parameters
    ----------
    rgb : numpy.ndarray
        uint8 (H, W, 3), 0.5 µm a pixel.
    parameters : StainParameters
        Thresholds and filter sizes.

    Returns
    -------
    numpy.ndarray
        int32 (H, W): number of the nucleus, 0 outside.
    numpy.ndarray
        bool, one a number: whether the nucleus is positive (entry 0 means nothing).
    """
    p = parameters
    red = np.minimum(ABSORBANCE[rgb[..., 0]], p.red_cap)
    dab = np.clip(dab_density(rgb), 0, p.dab_cap)
    smooth = ndimage.gaussian_filter(red, p.smooth)
    contrast = smooth - background(red, p.background_radius)
    brown = ndimage.gaussian_filter(dab, p.smooth) - background(dab, p.background_radius)

    positive = brown > threshold(brown, p.dab_contrast, p.dab_share, p.share_radius)
    positive &= contrast > p.red_contrast
    positive = ndimage.binary_opening(positive)
    apart = ~ndimage.binary_dilation(positive)
    negative = contrast > threshold(contrast, p.red_contrast, p.red_share, p.share_radius)
    mask = positive | (ndimage.binary_opening(negative & apart) & apart)

    distance = ndimage.distance_transform_edt(mask).astype(np.float32)
    landscape = ndimage.gaussian_filter(distance, p.peak_smooth)
    landscape += p.peak_density * ndimage.gaussian_filter(red, p.peak_smooth)
    peaks = (landscape == ndimage.maximum_filter(landscape, 2 * p.peak_radius + 1)) & mask
    seeds, count = ndimage.label(peaks, np.ones((3, 3)))
    if not count:
        return np.zeros(mask.shape, np.int32), np.zeros(1, np.bool_)
    nuclei: NDArray[np.int32] = watershed(-landscape, seeds, mask=mask)  # type: ignore[no-untyped-call]

    area = np.bincount(nuclei.ravel(), minlength=count + 1)
    density = np.bincount(nuclei.ravel(), brown.ravel(), minlength=count + 1) / np.maximum(area, 1)
    is_positive: BoolArray = density > p.positive_dab
    kept = area >= np.where(is_positive, p.positive_area, p.negative_area)
    kept[0] = False
    return np.where(kept[nuclei], nuclei, 0), is_positive


def _to_work_size(tile: UInt8Array) -> UInt8Array:
    if len(tile) == WORK_SIZE:
        return tile
    method = Image.Resampling.BOX if len(tile) > WORK_SIZE else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(tile).resize((WORK_SIZE, WORK_SIZE), method))


def _draw(nuclei: NDArray[np.int32], positive: BoolArray, out: UInt8Array) -> None:
    """Draw the nuclei into ``out`` (S, S, 3), which is black, in DeepLIIF's colors."""
    index = np.arange(len(out)) * len(nuclei) // len(out)
    labels = nuclei[np.ix_(index, index)]
    highest = ndimage.maximum_filter(labels, 3)
    # Of two touching nuclei the lower-numbered gives up its edge: no pixel of one then touches the other.
    inside = (labels > 0) & (labels == highest)
    brown = positive[labels]
    out[inside & brown] = POSITIVE
    out[inside & ~brown] = NEGATIVE
    out[~inside & (highest > 0)] = BOUNDARY
