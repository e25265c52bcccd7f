"""The changes of a field that `deepliif_ray.evaluation.robustness` goes through, step by step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from deepliif_ray.evaluation import perturbations
from deepliif_ray.evaluation.perturbations import UInt8Array

Change = Callable[[UInt8Array, float], UInt8Array]
"""Makes a picture, uint8 (H, W, 3), of one and its µm per pixel."""
YELLOW, BLUISH = (1.0, 0.95, 0.86), (0.86, 0.95, 1.0)
"""Red, green and blue of the strongest tints."""


@dataclass(frozen=True)
class Step:
    """One change of a field.

    Attributes
    ----------
    sweep, name : str
        What is changed, and how much.
    change : callable
        See `Change`.
    mpp : float, optional
        µm per pixel afterwards; as before when not given.
    circle : bool
        Whether the cells in the circle of `perturbations.inscribed` are compared, and not all.
    """

    sweep: str
    name: str
    change: Change
    mpp: float | None = None
    circle: bool = False


def _of(function: Callable[..., UInt8Array], **amounts: Any) -> Change:
    """Return a change that does not depend on the size of a pixel."""
    return lambda rgb, mpp: function(rgb, **amounts)


def _tint(name: str, strongest: Sequence[float], share: float) -> Step:
    factors = tuple(1 - share * (1 - factor) for factor in strongest)
    return Step("tint", f"{name} {share:g}", _of(perturbations.tint, factors=factors))


_SHARES = (0.25, 0.5, 0.75, 1.0)
SWEEPS: Mapping[str, tuple[Step, ...]] = {
    "tint": (
        *(_tint("bluish", BLUISH, share) for share in reversed(_SHARES)),
        *(_tint("yellow", YELLOW, share) for share in _SHARES),
    ),
    "gamma": tuple(
        Step("gamma", f"{value:g}", _of(perturbations.gamma, exponent=value))
        for value in (0.7, 0.85, 1.2, 1.4)
    ),
    "blur": tuple(
        Step("blur", f"{value:g} µm", partial(perturbations.blur, sigma_um=value))
        for value in (0.25, 0.5, 0.75, 1.0)
    ),
    "jpeg": tuple(
        Step("jpeg", f"quality {value}", _of(perturbations.jpeg, quality=value)) for value in (90, 75, 50, 25)
    ),
    "scale": tuple(
        Step("scale", f"{value:g} µm/px", partial(perturbations.rescale, new_mpp=value), mpp=value)
        for value in (0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
    ),
    "rotation": (
        Step("rotation", "90°", _of(perturbations.turned, quarters=1)),
        Step("rotation", "180°", _of(perturbations.turned, quarters=2)),
        Step("rotation", "270°", _of(perturbations.turned, quarters=3)),
        Step("rotation", "mirror", _of(perturbations.mirrored)),
        Step("rotation", "45°", _of(perturbations.inscribed, degrees=45.0), circle=True),
    ),
    "noise": tuple(
        Step("noise", f"sd {value}", _of(perturbations.noise, sigma=float(value))) for value in (2, 4, 8)
    ),
}
"""Steps by what is changed, in the order in which they are shown."""
