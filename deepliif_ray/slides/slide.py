"""What every kind of slide offers: its size, resolution and pixels."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.errors import ResolutionError

MAX_ANISOTROPY = 1.1


@dataclass(frozen=True)
class Level:
    """One resolution of a slide: its size in its own pixels, and level-0 pixels per pixel of it."""

    width: int
    height: int
    downsample: float


class Slide(ABC):
    """An open slide; use it as a context manager.

    Attributes
    ----------
    path : Path
        The file.
    vendor : str
        OpenSlide's word for the format, or ``png``, ``jpeg``, ``tiff`` for a plain image.
    levels : tuple of Level
        Resolutions, finest first.
    background : tuple of int
        RGB shown where the slide has no pixels.
    reader : str
        The library that reads it: ``openslide``, ``tifffile``, ``zarr``, ``pydicom``, ``czi`` or ``pillow``.
    series, plane : int or None
        Which image of the file and which focal plane of it is read, from 0; None where there is one.
    n_planes : int
        Focal planes of that image.
    bounds : tuple of int or None
        ``x, y, width, height`` of the scanned area in level-0 pixels, where the file says.
    notes : tuple of str
        What a person should know about how the file was read.
    """

    path: Path
    vendor: str
    levels: tuple[Level, ...]
    background: tuple[int, int, int] = (255, 255, 255)
    reader: str = ""
    series: int | None = None
    plane: int | None = None
    n_planes: int = 1
    bounds: tuple[int, int, int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def width(self) -> int:
        """Width in level-0 pixels."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Height in level-0 pixels."""
        return self.levels[0].height

    @property
    def mpp(self) -> float | None:
        """Micrometres per level-0 pixel that the file states; None if it states none.

        Raises
        ------
        ResolutionError
            Pixels are more than 10 % longer one way than the other.
        """
        return None

    def dicom_header(self) -> dict[str, Any] | None:
        """Return what the DICOM image of level 0 says of patient, study, specimen and itself.

        Returns
        -------
        dict or None
            In DICOM's JSON form, without pixels, frames and private elements; None if the slide is no DICOM.

        Raises
        ------
        SlideUnsuitableError
            The image is spread over several files, so that no single one can be referred to.
        """
        return None

    @abstractmethod
    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return the pixels of a rectangle within one level.

        Parameters
        ----------
        level : int
            Index into ``levels``.
        x, y, width, height : int
            The rectangle, in pixels of that level.

        Returns
        -------
        ndarray of uint8, shape (height, width, 4)
            RGBA, not premultiplied; alpha is 0 where the slide has no pixels.

        Raises
        ------
        SlideCorruptError
            The pixels cannot be decoded.
        """

    def read_rgb(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return the same as `read_level` laid over the slide's background, shape (height, width, 3)."""
        return flatten(self.read_level(level, x, y, width, height), self.background)

    def read_tile(self, x: int, y: int, size: int) -> NDArray[np.uint8]:
        """Return a square of level-0 pixels.

        Parameters
        ----------
        x, y : int
            Top left pixel, within the slide.
        size : int
            Side of the square. What lies beyond the slide is continued by mirroring, as published software
            continues an image smaller than a tile.

        Returns
        -------
        ndarray of uint8, shape (size, size, 3)

        Raises
        ------
        SlideCorruptError
            The pixels cannot be decoded.
        """
        width, height = min(size, self.width - x), min(size, self.height - y)
        if min(x, y) < 0 or min(width, height) <= 0:
            raise ValueError(f"{self.name}: there is no tile of {size} px at {x}, {y}")
        pixels = self.read_rgb(0, x, y, width, height)
        if (width, height) == (size, size):
            return pixels
        return np.pad(pixels, ((0, size - height), (0, size - width), (0, 0)), mode="symmetric")

    @abstractmethod
    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def flatten(rgba: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Lay RGBA pixels, not premultiplied, over a colour.

    Parameters
    ----------
    rgba : ndarray of uint8, shape (height, width, 4)
    background : tuple of int
        RGB, 0 to 255.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    alpha = rgba[..., 3:].astype(np.uint16)
    if alpha.size == 0 or alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    mixed = rgba[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def square_mpp(name: str, across: float, down: float) -> float:
    """Return the µm per pixel of a slide from its pixels' width and height.

    Raises
    ------
    ResolutionError
        One is more than 10 % longer than the other.
    """
    if not 1 / MAX_ANISOTROPY <= across / down <= MAX_ANISOTROPY:
        raise ResolutionError(
            f"{name}: pixels are {across:g} × {down:g} µm, not square; resample the slide, or give its "
            "mpp in the manifest if the file is wrong"
        )
    return math.sqrt(across * down)
