"""How often 95 % intervals of an index hold the truth, on simulated tissue whose index is known exactly.

    python -m benchmarks.coverage [--simulations 1000] [--only slides|patients]

The index of a slide is an estimate of the index of tissue like it. So each simulation is a new piece of
tissue: a cell is positive with a probability that is the logistic function of a Gaussian random field, and
cells fall by a Poisson process whose density follows a second field (a Cox process), correlated with the
first or not. Both fields go on across all borders of blocks. The true index, the mean probability of a cell,
is an integral that is known to many digits. The correlation of the fields falls to 1/e over the given length.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.optimize import brentq
from scipy.special import expit

from tests.scoring import clustered

BLOCK_UM = 250
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(120)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Tissue:
    """What kind of tissue is simulated.

    Attributes
    ----------
    index : float
        Share of positive cells in all tissue of the kind, 0–1.
    length_um : float
        Distance at which the correlation of the fields is 1/e.
    height_um, width_um : float
        Size of a slide's tissue.
    spread : float
        Standard deviation of positivity within a slide, in logits.
    between : float
        The same between slides of a patient.
    crowding : float
        Standard deviation of the logarithm of cell density.
    crowded_positive : float
        Correlation between density and positivity.
    cells_per_mm2 : float
        Mean density.
    rough : bool
        Correlation falls exponentially, with a long tail, and not as a Gaussian.
    pixel_um : float
        Within a pixel both fields are constant.
    """

    index: float
    length_um: float
    height_um: float = 5000
    width_um: float = 5000
    spread: float = 1.5
    between: float = 0.0
    crowding: float = 0.7
    crowded_positive: float = 0.0
    cells_per_mm2: float = 5000
    rough: bool = False
    pixel_um: float = 25

    def intercept(self) -> float:
        """Return the mean logit that gives the index.

        Weighting with a log-normal density moves the mean of the field by its covariance with the logarithm
        of the density.
        """
        moved = self.spread * self.crowded_positive * self.crowding
        scale = np.hypot(self.spread, self.between)
        return float(
            brentq(lambda a: _WEIGHTS @ expit(a + moved + scale * _NODES) - self.index, -50, 50, xtol=1e-12)
        )


Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


def simulate(tissue: Tissue, slides: int, rng: np.random.Generator, effect: float = 0.0) -> Counts:
    """Return positive and all cells of each block, each int64 of shape (slides, H, W).

    The grid of blocks begins at a random place in the corner of the tissue, the same for all slides.

    Parameters
    ----------
    tissue : Tissue
    slides : int
    rng : numpy.random.Generator
    effect : float or array of shape (slides, 1, 1)
        Added to the logit of all cells of a slide.
    """
    height, width = (round(side / tissue.pixel_um) for side in (tissue.height_um, tissue.width_um))
    margin = int(5 * tissue.length_um / tissue.pixel_um) + 1  # or opposite borders would be neighbours
    shape = (next_fast_len(height + margin), next_fast_len(width + margin))
    spectrum = _spectrum(shape, tissue)
    positivity, own = (_field(spectrum, shape, slides, rng)[:, :height, :width] for _ in range(2))
    common = tissue.crowded_positive
    density = common * positivity + np.sqrt(1 - common**2) * own
    mean = tissue.cells_per_mm2 * (tissue.pixel_um / 1000) ** 2
    total = rng.poisson(mean * np.exp(tissue.crowding * density - tissue.crowding**2 / 2))
    positive = rng.binomial(total, expit(tissue.intercept() + effect + tissue.spread * positivity))
    pixels = round(BLOCK_UM / tissue.pixel_um)
    down, right = rng.integers(0, pixels, 2)
    return _summed(positive, pixels, down, right), _summed(total, pixels, down, right)


def _spectrum(shape: tuple[int, int], tissue: Tissue) -> NDArray[np.float64]:
    y, x = (np.minimum(np.arange(n), n - np.arange(n)) * tissue.pixel_um for n in shape)
    distance = np.hypot(y[:, None], x[None, :]) / tissue.length_um
    correlation = np.exp(-distance) if tissue.rough else np.exp(-(distance**2))
    return np.asarray(np.sqrt(np.maximum(rfft2(correlation).real, 0)), dtype=np.float32)


def _field(
    spectrum: NDArray[np.float64], shape: tuple[int, int], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    noise = rng.standard_normal((count, *shape), dtype=np.float32)
    return np.asarray(irfft2(rfft2(noise) * spectrum, s=shape))


def _summed(counts: NDArray[np.int64], pixels: int, down: int, right: int) -> NDArray[np.int64]:
    slides, height, width = counts.shape
    below, beside = (-(n + start) % pixels for n, start in ((height, down), (width, right)))
    padded = np.pad(counts, ((0, 0), (down, below), (right, beside)))
    rows, columns = padded.shape[1] // pixels, padded.shape[2] // pixels
    return padded.reshape(slides, rows, pixels, columns, pixels).sum((2, 4))


@dataclass(frozen=True)
class Coverage:
    """How often intervals hold the true index, and how wide they are, in percent.

    ``blocks_*`` is of independent blocks of 500 µm, ``within_*`` of patients' slides as if they were one.
    """

    n_blocks: float
    clustered: float
    plain: float
    clustered_width: float
    plain_width: float
    blocks: float = np.nan
    blocks_width: float = np.nan
    within: float = np.nan
    within_width: float = np.nan


def coverage(tissue: Tissue, simulations: int, seed: int = 0) -> Coverage:
    """Simulate slides, each by itself, and count how often intervals hold the index."""
    rng, found = np.random.default_rng(seed), []
    pixels = tissue.height_um * tissue.width_um / tissue.pixel_um**2
    for count in _portions(simulations, max(1, int(4e6 / pixels))):
        positive, total = simulate(tissue, count, rng)
        sums = clustered.block_sums(positive, total)
        x, n = positive.sum((1, 2)), total.sum((1, 2))
        wide_x, wide_n = (_summed(a, 2, 0, 0) for a in (positive, total))
        t = (wide_n > 0).sum((1, 2))
        squares = ((wide_x - (x / n)[:, None, None] * wide_n) ** 2).sum((1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):  # one block tells nothing
            alone = clustered.effective_number(x, n, squares / n**2 * t / (t - 1), t - 1)
        numbers = (clustered.effective_cells(x, n, sums), n, alone)
        found.append([sums.n_blocks, *_held(x, n, numbers, tissue.index)])
    blocks, held, width, plain, plain_width, alone, alone_width = np.concatenate(found, axis=1).mean(1)
    return Coverage(
        blocks, 100 * held, 100 * plain, width, plain_width, blocks=100 * alone, blocks_width=alone_width
    )


def patient_coverage(tissue: Tissue, slides: int, simulations: int, seed: int = 0) -> Coverage:
    """Simulate patients of several slides, every second one of them half as large as the others."""
    rng, found = np.random.default_rng(seed), []
    pixels = tissue.height_um * tissue.width_um / tissue.pixel_um**2
    for count in _portions(simulations, max(1, int(4e6 / pixels))):
        of_slides, sums = [], None
        for number in range(slides):
            effect = rng.normal(0, tissue.between, (count, 1, 1))
            smaller = Tissue(**{**vars(tissue), "width_um": tissue.width_um / (1 + number % 2)})
            positive, total = simulate(smaller, count, rng, effect)
            of_slides.append((positive.sum((1, 2)), total.sum((1, 2))))
            here = clustered.block_sums(positive, total)
            sums = here if sums is None else sums + here
        slide_x, slide_n = (np.stack(a, axis=1) for a in zip(*of_slides, strict=True))
        x, n = slide_x.sum(1), slide_n.sum(1)
        both = clustered.patient_effective_cells(x, n, sums, slide_x, slide_n)
        numbers = (both, n, clustered.effective_cells(x, n, sums))
        found.append([sums.n_blocks, *_held(x, n, numbers, tissue.index)])
    blocks, held, width, plain, plain_width, within, within_width = np.concatenate(found, axis=1).mean(1)
    return Coverage(
        blocks, 100 * held, 100 * plain, width, plain_width, within=100 * within, within_width=within_width
    )


def _portions(count: int, most: int) -> list[int]:
    return [min(most, count - done) for done in range(0, count, most)]


def _held(
    x: NDArray[np.int64], n: NDArray[np.int64], numbers: tuple[NDArray[np.float64], ...], index: float
) -> list[NDArray[np.float64]]:
    found = []
    for effective in numbers:
        lower, upper = clustered.interval(x, n, effective)
        found += [(lower <= 100 * index) & (100 * index <= upper), upper - lower]
    return found


def _slides(simulations: int) -> None:
    print(
        "| index | density and positivity | length, µm | tissue, mm | blocks | clustered covers | width "
        "| blocks of 500 µm alone | width | plain covers | width |\n|" + "---:|" * 11
    )
    sizes = ((1000, 1000), (2000, 2000), (500, 10000), (5000, 5000), (10000, 10000))
    kinds = [(size, length, False) for size in sizes for length in (50, 100, 200)]
    kinds += [((15000, 15000), 100, False), ((5000, 5000), 100, True), ((5000, 5000), 200, True)]
    for (height, width), length, rough in kinds:
        for index, common in ((0.03, 0.5), (0.2, 0.0), (0.6, 0.0)):
            pixel = 25 if length <= 50 else 50
            tissue = Tissue(
                index, length, height, width, crowded_positive=common, rough=rough, pixel_um=pixel
            )
            found = coverage(tissue, simulations)
            print(
                f"| {100 * index:.0f} % | {'correlated' if common else 'independent'} "
                f"| {length}{' rough' if rough else ''} | {height / 1000:g} × {width / 1000:g} "
                f"| {found.n_blocks:.0f} | {found.clustered:.1f} % | {found.clustered_width:.2f} "
                f"| {found.blocks:.1f} % | {found.blocks_width:.2f} "
                f"| {found.plain:.1f} % | {found.plain_width:.2f} |",
                flush=True,
            )


def _patients(simulations: int) -> None:
    print(
        "| slides | spread between them, logits | clustered covers | width | blocks alone cover | width "
        "| plain covers | width |\n|" + "---:|" * 8
    )
    for slides in (2, 3, 4, 6):
        for between in (0.0, 0.1, 0.3):
            tissue = Tissue(0.2, 100, 3000, 3000, between=between, pixel_um=50)
            found = patient_coverage(tissue, slides, simulations)
            print(
                f"| {slides} | {between} | {found.clustered:.1f} % | {found.clustered_width:.2f} "
                f"| {found.within:.1f} % | {found.within_width:.2f} | {found.plain:.1f} % "
                f"| {found.plain_width:.2f} |",
                flush=True,
            )


def main() -> None:
    """Print tables of coverage and mean widths, in percentage points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--only", choices=["slides", "patients"])
    arguments = parser.parse_args()
    if arguments.only != "patients":
        _slides(arguments.simulations)
    if arguments.only != "slides":
        _patients(arguments.simulations)


if __name__ == "__main__":
    main()
