"""Modality images against real ones."""

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from deepliif_ray.errors import ConfigError

UInt8Array = NDArray[np.uint8]
_SIGMA = 1.5
_WINDOW = 11


def mean_squared_error(found: UInt8Array, truth: UInt8Array) -> float:
    """Return the mean of squared differences of grey values, from 0 (equal) to 1.

    MSE = Σ (f − t)² / (H W) with f, t the luminances in 0 to 1, as in the statistics published with DeepLIIF.

    Parameters
    ----------
    found, truth : ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    ConfigError
        The shapes differ.
    """
    one, other = _grey(found, truth)
    return float(((one - other) ** 2).mean())


def structural_similarity_index(found: UInt8Array, truth: UInt8Array, value_range: float = 1.0) -> float:
    """Return the mean structural similarity of grey values, 1 for equal images, at least −1.

    Gaussian windows (σ 1.5) and population covariances, as in Wang et al., IEEE Trans Image Process 2004;
    13:600-612, and in the statistics published with DeepLIIF, which however gave the range of values as 255
    where they lie in 0 to 1, so that its stabilising constants outweigh the images and similarities come out
    close to 1. Here the range is 1 unless another is asked for.

    Parameters
    ----------
    found, truth : ndarray of uint8, shape (H, W, 3)
        At least 11 px a side.
    value_range : float
        What is taken for the range of values.

    Raises
    ------
    ConfigError
        The shapes differ or are too small.
    """
    one, other = _grey(found, truth)
    if min(one.shape) < _WINDOW:
        raise ConfigError(f"structural similarity needs images of {_WINDOW} px a side; these are {one.shape}")
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            one,
            other,
            data_range=value_range,
            gaussian_weights=True,
            sigma=_SIGMA,
            use_sample_covariance=False,
        )
    )


def _grey(found: UInt8Array, truth: UInt8Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if found.shape != truth.shape:
        raise ConfigError(f"images to compare are {found.shape} and {truth.shape}; give them the same size")
    return rgb2gray(found), rgb2gray(truth)
