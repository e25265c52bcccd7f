"""Augmentation: other laboratories' stains, scanners and sections, made of the tiles at hand.

Stains are separated and mixed again as optical densities (Ruifrok & Johnston 2001; for augmentation Tellez et
al. 2018): each stain gets another strength, gamma and colour, the glass another white. Cells that the
segmentation calls positive are also darkened or paled on their own, because laboratories differ most in how
dark DAB comes out, up to black.
"""

import io
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import hed_from_rgb, rgb_from_hed

from deepliif_ray.errors import ConfigError
from deepliif_ray.storage import shown
from deepliif_ray.training.panels.files import SEG, Panels, UInt8Array

HORIZONTAL = "horizontal"
FloatArray = NDArray[np.float32]
Rng = np.random.Generator
_TO_STAINS = hed_from_rgb.astype(np.float32)
_TO_DENSITY = rgb_from_hed.astype(np.float32)
_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


@dataclass(frozen=True)
class Augment:
    """How strongly to augment; 0 turns a part off.

    Parameters
    ----------
    scale : float
        Crops are taken from ``1 / (1 + scale)`` to ``1 + scale`` times their size.
    flips : bool or str
        Whether to flip and turn by multiples of 90°; ``horizontal``: only mirror left and right, every
        second time, as published training does.
    stain : float
        Standard deviation of the logarithm of each stain's strength.
    hue : float
        Standard deviation of what is added to the components of each stain's vector.
    background : float
        Standard deviation of the glass's white, in grey levels.
    cells : float
        Standard deviation of the logarithm of single cells' own strength.
    black : float
        Chance that the positive cells of a tile become very dark.
    tone : float
        Standard deviation of the logarithm of the image's gamma and contrast.
    fringes : float
        Chance of colour fringes: a lens that bends and blurs each colour by its own measure.
    coarse : float
        Chance of coarser pixels: the image as it looks when it was scanned at up to 2.6 times the pixel size
        and enlarged.
    blur, jpeg, noise : float
        Chance of a blur, of JPEG artefacts and of sensor noise.
    """

    scale: float = 0.3
    flips: bool | str = True
    stain: float = 0.35
    hue: float = 0.04
    background: float = 8.0
    cells: float = 0.2
    black: float = 0.3
    tone: float = 0.15
    fringes: float = 0.2
    coarse: float = 0.0
    blur: float = 0.3
    jpeg: float = 0.3
    noise: float = 0.3

    @classmethod
    def none(cls) -> Self:
        """Return settings that only crop."""
        return cls(0, False, *(0,) * (len(fields(cls)) - 2))

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        """Return settings of a configuration's keys.

        Raises
        ------
        ConfigError
            A key is unknown, or its value cannot be used.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(options) - known):
            raise ConfigError(f"augment: unknown {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if (flips := options.get("flips", True)) not in (True, False, HORIZONTAL):
            raise ConfigError(f"augment: flips is {shown(flips)}; use true, false or {HORIZONTAL}")
        numbers = {key: value for key, value in options.items() if key != "flips"}
        if wrong := [key for key, value in numbers.items() if not isinstance(value, int | float)]:
            raise ConfigError(f"augment: {', '.join(wrong)} must be a number")
        if negative := [key for key, value in numbers.items() if value < 0]:
            raise ConfigError(f"augment: {', '.join(negative)} must not be negative")
        return cls(**options)


def augmented(panels: Panels, rng: Rng, crop: int, settings: Augment) -> Panels:
    """Return a random crop of ``panels``, augmented.

    Parameters
    ----------
    panels : Panels
        Smaller tiles are continued by mirroring.
    rng : numpy.random.Generator
        Every choice comes from it: the same state gives the same crop.
    crop : int
        Side of the crop in pixels.
    settings : Augment
        How strongly.

    Returns
    -------
    Panels
        Contiguous uint8 images (crop, crop, 3).
    """
    images = [panels.ihc, *panels.targets.values()]
    images = _geometry(images, rng, crop, settings)
    targets = dict(zip(panels.targets, images[1:], strict=True))
    ihc = _stains(images[0], targets.get(SEG), rng, settings)
    return Panels(panels.name, _camera(_tone(ihc, rng, settings), rng, settings), targets)


def _geometry(images: list[UInt8Array], rng: Rng, crop: int, settings: Augment) -> list[UInt8Array]:
    reach = np.log1p(settings.scale)
    side = round(crop * float(np.exp(rng.uniform(-reach, reach)))) if reach else crop
    height, width = images[0].shape[:2]
    if short := max(side - height, side - width, 0):
        images = [np.pad(i, ((0, short), (0, short), (0, 0)), mode="symmetric") for i in images]
        height, width = images[0].shape[:2]
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    images = [image[y : y + side, x : x + side] for image in images]
    if side != crop:
        size, bilinear = (crop, crop), Image.Resampling.BILINEAR
        images = [np.asarray(Image.fromarray(np.ascontiguousarray(i)).resize(size, bilinear)) for i in images]
    if settings.flips:
        if settings.flips != HORIZONTAL:
            turns = int(rng.integers(4))
            images = [np.rot90(image, turns) for image in images]
        images = [image[:, ::-1] for image in images] if rng.integers(2) else images
    return [np.ascontiguousarray(image) for image in images]


def _stains(ihc: UInt8Array, seg: UInt8Array | None, rng: Rng, settings: Augment) -> UInt8Array:
    if not (settings.stain or settings.hue or settings.background or settings.cells or settings.black):
        return ihc
    stains = _DENSITY[ihc] @ _TO_STAINS
    strength = np.exp(rng.normal(0, settings.stain, 3)).astype(np.float32)
    gamma = np.exp(rng.normal(0, settings.stain / 3, 3)).astype(np.float32)
    # Eosin's channel holds what the other two do not explain; its strength should stay near theirs.
    strength[1] = strength[1] ** 0.5
    # Of a dark pixel, colour says little: strengths act on all of it alike.
    stains = np.sign(stains) * np.abs(stains) ** gamma * strength
    if seg is not None and (settings.cells or settings.black):
        stains *= _cell_strengths(seg, rng, settings)[..., None]
    vectors = _TO_DENSITY + rng.normal(0, settings.hue, (3, 3)).astype(np.float32)
    white = 255 + rng.normal(0, settings.background, 3).astype(np.float32)
    density = stains @ np.maximum(vectors, 0.02)
    light = np.minimum(white, 255 + 0.3 * (white - 255)) * 10 ** -np.maximum(density, -0.02)
    result: UInt8Array = np.clip(light, 0, 255).round().astype(np.uint8)
    return result


def _tone(image: UInt8Array, rng: Rng, settings: Augment) -> UInt8Array:
    """Return ``image`` with another gamma and another contrast about its median."""
    if not settings.tone:
        return image
    gamma, contrast = np.exp(rng.normal(0, settings.tone, 2))
    values = 255 * (np.arange(256) / 255) ** gamma
    middle = float(np.median(image))
    table = np.clip(middle + contrast * (values - middle), 0, 255).round().astype(np.uint8)
    result: UInt8Array = table[image]
    return result


def _fringed(image: UInt8Array, rng: Rng) -> UInt8Array:
    """Return ``image`` with each channel moved by up to 1.5 px and blurred on its own."""
    moves = rng.uniform(-1.0, 1.0, 2) * np.array([[0.0], [0.5], [1.5]])[rng.permutation(3)]
    blurs = rng.uniform(0, 1.5, 3)
    channels = []
    for channel, move, blur in zip(np.moveaxis(image, 2, 0), moves, blurs, strict=True):
        moved = ndimage.shift(channel.astype(np.float32), move, order=1, mode="nearest")
        channels.append(ndimage.gaussian_filter(moved, blur))
    result: UInt8Array = np.clip(np.stack(channels, axis=2), 0, 255).round().astype(np.uint8)
    return result


def _coarser(image: UInt8Array, factor: float) -> UInt8Array:
    """Return ``image`` as if its pixels had been ``factor`` times as wide, at its own size."""
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize(
        (max(1, round(width / factor)), max(1, round(height / factor))), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _cell_strengths(seg: UInt8Array, rng: Rng, settings: Augment) -> FloatArray:
    """Return a smooth factor (H, W) that gives single cells, and positive ones together, another strength."""
    cells = (seg[..., 0] > 100) | (seg[..., 2] > 100)
    positive = seg[..., 0] > seg[..., 2]
    labels, count = ndimage.label(cells & (seg[..., 1] < 128))
    factors = np.exp(rng.normal(0, settings.cells, count + 1)).astype(np.float32)
    black, boost = rng.random() < settings.black, float(rng.uniform(1.3, 5.0))
    if black and count:
        red = ndimage.mean(positive, labels, np.arange(count + 1)) > 0.5
        factors[red] *= boost
    factors[0] = 1
    # The labels stop at the green line; the stain reaches over it.
    factor = ndimage.gaussian_filter(ndimage.grey_dilation(factors[labels] - 1, 5) + 1, 1.0)
    return np.asarray(factor, np.float32)


def _camera(image: UInt8Array, rng: Rng, settings: Augment) -> UInt8Array:
    """Return ``image`` as another scanner would have stored it."""
    if settings.fringes and rng.random() < settings.fringes:
        image = _fringed(image, rng)
    if settings.coarse and rng.random() < settings.coarse:
        image = _coarser(image, float(rng.uniform(1.2, 2.6)))
    if rng.random() < settings.blur:
        if rng.random() < 0.6:
            image = ndimage.gaussian_filter(image, (*(float(rng.uniform(0.4, 1.6)),) * 2, 0))
        else:  # sharpened, as many scanners do
            smooth = ndimage.gaussian_filter(image.astype(np.float32), (1.2, 1.2, 0))
            amount = rng.uniform(0.3, 1.5)
            image = np.clip(image + amount * (image - smooth), 0, 255).astype(np.uint8)
    if rng.random() < settings.noise:
        sigma = rng.uniform(1, 6)
        image = np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)
    if rng.random() < settings.jpeg:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(30, 92)))
        image = np.asarray(Image.open(buffer))
    return image
