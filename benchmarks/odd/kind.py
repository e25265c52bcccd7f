"""What a kind of odd file is, and the list of all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

Picture = NDArray[np.uint8]
Maker = Callable[[Path, Picture], None]
TILED: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb"}
MPP: dict[str, Any] = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}  # 0.25 µm per pixel
OME_MPP: dict[str, Any] = {
    "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm",
}  # fmt: skip
SCORED = "scored"


@dataclass(frozen=True)
class OddFile:
    """A kind of file.

    Attributes
    ----------
    section, name, suffix : str
    make : callable
        Writes the picture to a path as such a file.
    right : str
        ``scored``, the reason of the failure that is right, or the quality flag that is.
    tolerance : float
        Mean difference from the picture, in grey levels, that its compression may make.
    manifest : dict
        ``series`` and ``plane`` of the manifest.
    mpp : float, optional
        µm per pixel in the manifest; None: the file itself says 0.25.
    same_pixels : bool
        Whether it shows the picture pixel by pixel; else the same tissue at another scale or in a frame.
    like : str
        The kind whose cells and index it should have.
    """

    section: str
    name: str
    suffix: str
    make: Maker
    right: str
    tolerance: float
    manifest: dict[str, int]
    mpp: float | None
    same_pixels: bool = True
    like: str = "picture"


ODD_FILES: dict[str, OddFile] = {}


def _odd(
    section: str,
    right: str = SCORED,
    *,
    suffix: str = ".tif",
    tolerance: float = 0.0,
    mpp: float | None = None,
    name: str | None = None,
    plane: int | None = None,
    series: int | None = None,
    **more: Any,
) -> Callable[[Maker], Maker]:
    manifest = {key: value for key, value in (("plane", plane), ("series", series)) if value is not None}

    def register(make: Maker) -> Maker:
        known = name or make.__name__
        if known in ODD_FILES:
            raise ValueError(f"two kinds are named {known}")
        ODD_FILES[known] = OddFile(section, known, suffix, make, right, tolerance, manifest, mpp, **more)
        return make

    return register


class Register(Protocol):
    """Registers a maker in a section; keywords are attributes of `OddFile`."""

    def __call__(self, right: str = SCORED, **attributes: Any) -> Callable[[Maker], Maker]: ...  # noqa: D102


def section(title: str) -> Register:
    """Return what registers makers in a section of the table."""
    return partial(_odd, title)


def planes(picture: Picture) -> Picture:
    """Return (3, H, W)."""
    return np.ascontiguousarray(np.moveaxis(picture, 2, 0))


def ome(path: Path, data: NDArray[Any], axes: str, *, tiled: bool = True, **more: Any) -> None:
    """Write an OME-TIFF that says its pixel size in OME-XML alone."""
    metadata = {"axes": axes, **OME_MPP, **more.pop("metadata", {})}
    tile = {"tile": (128, 128)} if tiled else {}
    photometric = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(path, data, ome=True, photometric=photometric, metadata=metadata, **tile, **more)


def sharp_in_the_middle(picture: Picture, count: int = 5) -> Picture:
    """Return a z-stack (count, H, W, 3) whose middle plane is the picture and whose others are blurred."""
    blurs = [abs(n - count // 2) * 3.0 for n in range(count)]
    return np.stack([ndimage.gaussian_filter(picture, (b, b, 0)) if b else picture for b in blurs])
