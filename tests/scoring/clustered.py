"""Clustered intervals of a percentage of cells, as ``query/sql/intervals.sql`` has them, for whole arrays."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

Z = norm.ppf(0.975)


@dataclass(frozen=True)
class Sums:
    """Sums of squares and products over blocks and windows of each slide, all of shape (slides,)."""

    n_blocks: np.ndarray
    block_xx: np.ndarray
    block_xn: np.ndarray
    block_nn: np.ndarray
    window_xx: np.ndarray
    window_xn: np.ndarray
    window_nn: np.ndarray

    def __add__(self, other):
        return Sums(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self):
        return tuple(vars(self).values())


def windows(blocks):
    """Return sums of 2 × 2 neighbours, shape (slides, H + 1, W + 1), of blocks of shape (slides, H, W)."""
    padded = np.pad(blocks, ((0, 0), (1, 1), (1, 1)))
    return padded[:, 1:, 1:] + padded[:, :-1, 1:] + padded[:, 1:, :-1] + padded[:, :-1, :-1]


def block_sums(positive, total):
    """Return the sums of slides whose blocks have these cells, int64 arrays of shape (slides, H, W)."""
    found = [(total > 0).sum((1, 2))]
    for x, n in ((positive, total), (windows(positive), windows(total))):
        found += [(x * x).sum((1, 2)), (x * n).sum((1, 2)), (n * n).sum((1, 2))]
    return Sums(*found)


def residual_squares(positive, total, xx, xn, nn):
    share = positive / total
    return xx - 2 * share * xn + share**2 * nn


def effective_number(positive, total, variance, df):
    positive, total, variance = (np.asarray(v, dtype=float) for v in (positive, total, variance))
    share = positive / total
    binomial = share * (1 - share)
    unseen = (binomial == 0) | (variance <= 0)
    number = np.where(unseen, total, np.minimum(total, binomial / np.where(unseen, 1, variance)))
    return number * np.minimum(1, (Z / t.ppf(0.975, df)) ** 2)


def effective_cells(positive, total, sums):
    blocks = residual_squares(positive, total, sums.block_xx, sums.block_xn, sums.block_nn)
    wide = residual_squares(positive, total, sums.window_xx, sums.window_xn, sums.window_nn)
    variance = np.maximum(blocks, wide / 2 - blocks) / np.asarray(total, float) ** 2 * (1 + 5 / sums.n_blocks)
    number = effective_number(positive, total, variance, np.maximum(1, (sums.n_blocks - 1) // 4))
    return np.where(sums.n_blocks < 2, np.nan, number)


def patient_effective_cells(positive, total, sums, slide_positive, slide_total):
    """Of patients with the same number of slides; the last two have shape (patients, slides)."""
    within, n_slides = effective_cells(positive, total, sums), slide_total.shape[1]
    if n_slides == 1:
        return within
    share = (positive / total)[:, None]
    variance = ((slide_positive - share * slide_total) ** 2).sum(1) / total**2 * n_slides / (n_slides - 1)
    return np.minimum(within, effective_number(positive, total, variance, n_slides - 1))


def interval(positive, total, effective):
    """Return the ends in percent of Wilson's interval on effective numbers."""
    positive, total = np.asarray(positive, float), np.asarray(total, float)
    share = positive / total
    centre = share + Z * Z / (2 * effective)
    half = Z * np.sqrt(share * (1 - share) / effective + Z * Z / (4 * effective**2))
    scale = 100 / (1 + Z * Z / effective)
    lower = np.where(positive == 0, 0 * effective, (centre - half) * scale)
    return lower, np.where(positive == total, 100 + 0 * effective, (centre + half) * scale)
