"""What a scanner, a stain or a file can do to a field: pure functions on images, the same every time."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float64]


def tint(rgb: UInt8Array, factors: tuple[float, float, float]) -> UInt8Array:
    """Return an image whose channels are multiplied, as light of another colour would.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    factors : tuple of float
        Of red, green and blue; 0.86 of blue makes white glass yellow.
    """
    return _bytes(rgb * np.asarray(factors))


def gamma(rgb: UInt8Array, exponent: float) -> UInt8Array:
    """Return an image with 255 (v / 255)^``exponent`` for each value v: above 1 darker, below 1 paler.

    Optical densities are multiplied by ``exponent``.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    exponent : float
    """
    return _bytes(255 * (np.arange(256) / 255) ** exponent)[rgb]


def blur(rgb: UInt8Array, mpp: float, *, sigma_um: float) -> UInt8Array:
    """Return an image out of focus, by a Gaussian filter.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    mpp : float
        µm per pixel.
    sigma_um : float
        Standard deviation, µm.
    """
    sigma = sigma_um / mpp
    return _bytes(ndimage.gaussian_filter(rgb.astype(np.float64), (sigma, sigma, 0), mode="reflect"))


def jpeg(rgb: UInt8Array, quality: int) -> UInt8Array:
    """Return an image as JPEG keeps it, with colours at half the resolution.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    quality : int
        1 to 100, as libjpeg counts it.
    """
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer) as image:
        return np.array(image.convert("RGB"))


def noise(rgb: UInt8Array, sigma: float) -> UInt8Array:
    """Return an image with Gaussian noise, the same for every image of a size.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    sigma : float
        Standard deviation, grey levels.
    """
    return _bytes(rgb + sigma * np.random.default_rng(0).standard_normal(rgb.shape))


def rescale(rgb: UInt8Array, mpp: float, *, new_mpp: float) -> UInt8Array:
    """Return the field as a scanner of another pixel size would show it, by Pillow's bicubic filter.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    mpp, new_mpp : float
        µm per pixel before and after; sides are rounded to whole pixels.
    """
    height, width = (max(1, round(side * mpp / new_mpp)) for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def turned(rgb: UInt8Array, quarters: int) -> UInt8Array:
    """Return an image turned counter-clockwise by ``quarters`` right angles, pixel by pixel."""
    return np.ascontiguousarray(np.rot90(rgb, quarters))


def mirrored(rgb: UInt8Array) -> UInt8Array:
    """Return an image with left and right exchanged."""
    return np.ascontiguousarray(rgb[:, ::-1])


def inscribed(rgb: UInt8Array, degrees: float = 0.0) -> UInt8Array:
    """Return the square in the middle of a field that is full of tissue however the field is turned.

    Its side is the field's shorter one divided by √2. Turned fields are interpolated with cubic splines. The
    square of a turned field shows another part of the field, but the circle in it shows the same one.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    degrees : float
        Counter-clockwise.
    """
    height, width = rgb.shape[:2]
    side = int(min(height, width) / np.sqrt(2))
    top, left = (height - side) // 2, (width - side) // 2
    if degrees == 0:
        return np.ascontiguousarray(rgb[top : top + side, left : left + side])
    angle = np.deg2rad(degrees)
    middle = np.array([top + (side - 1) / 2, left + (side - 1) / 2])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    start = middle - turn @ np.full(2, (side - 1) / 2)
    channels = [
        ndimage.affine_transform(
            rgb[..., channel].astype(np.float64), turn, start, (side, side), order=3, mode="reflect"
        )
        for channel in range(3)
    ]
    return _bytes(np.stack(channels, axis=-1))


def _bytes(values: FloatArray) -> UInt8Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
