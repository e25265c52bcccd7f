"""Large images on disk while they are made: in tiles, with overviews, and written as pyramidal OME-TIFF.

Tiles lie in Zarr arrays, packed, so that memory does not grow with the image, whatever order they are made
in.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepliif_ray.errors import ConfigError

if TYPE_CHECKING:
    import zarr

SIDE = 512
"""Of tiles, px; overviews are made until one has no side longer than this."""
Area = tuple[int, int, int, int]
"""x, y, width, height in level-0 px."""
Pixels = NDArray[Any]
Tick = Callable[[], None]


def _quiet() -> None:
    """Tell nobody how far it is."""


def area_within(name: str, asked: Area | None, size: tuple[int, int], option: str) -> Area:
    """Return the area that is meant: all of the slide, or the one that is asked for.

    Parameters
    ----------
    name : str
        The slide, for messages.
    asked : Area, optional
    size : tuple of int
        Width and height of the slide, px.
    option : str
        What the command calls it.

    Raises
    ------
    ConfigError
        It is empty, or not all of it lies on the slide.
    """
    if asked is None:
        return 0, 0, *size
    x, y, width, height = asked
    if min(x, y) < 0 or min(width, height) < 1 or x + width > size[0] or y + height > size[1]:
        raise ConfigError(
            f"{name}: {option} {x},{y},{width},{height} is not within the slide, which has {size[0]:,} × "
            f"{size[1]:,} px; give X,Y,WIDTH,HEIGHT that lies on it"
        )
    return asked


class Levels:
    """An image and its overviews, each half as large as the one before, as Zarr arrays in a folder.

    Parameters
    ----------
    folder : Path
        Arrays are named 0, 1, … in it.
    shape : tuple of int
        Rows, columns, and channels if there are several.
    dtype : dtype
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: Any) -> None:
        import zarr

        self.arrays: list[zarr.Array[Any]] = []
        names = ["y", "x", "c"]
        rows, columns, *rest = shape
        while True:
            array = zarr.create_array(
                store=str(folder / str(len(self.arrays))),
                shape=(rows, columns, *rest),
                chunks=(SIDE, SIDE, *rest),
                dtype=dtype,
                dimension_names=names[: 2 + len(rest)],
            )
            self.arrays.append(array)
            if max(rows, columns) <= SIDE:
                break
            rows, columns = -(-rows // 2), -(-columns // 2)

    def write(self, x: int, y: int, pixels: Pixels) -> None:
        """Write a rectangle of the image whose upper left pixel is at column ``x``, row ``y``."""
        self.arrays[0][y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels

    def make_overviews(self, halve: Callable[[Pixels], Pixels], tick: Tick = _quiet) -> None:
        """Make the overviews, when the image is complete.

        Parameters
        ----------
        halve : callable
            Returns pixels half as high and wide, rounded up.
        tick : callable
            Called after each tile.
        """
        for finer, coarser in zip(self.arrays, self.arrays[1:], strict=False):
            for y, x in _places(coarser.shape):
                pixels = np.asarray(finer[2 * y : 2 * (y + SIDE), 2 * x : 2 * (x + SIDE)])
                made = halve(pixels)
                coarser[y : y + made.shape[0], x : x + made.shape[1]] = made
                tick()


def halved_colours(pixels: Pixels) -> Pixels:
    """Return RGB pixels half as large: means of two by two, and at an odd edge of what there is."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(2))


def halved_labels(pixels: Pixels) -> Pixels:
    """Return labels half as large: the upper left one of two by two, for numbers of cells have no mean."""
    return pixels[::2, ::2]


@dataclass(frozen=True)
class Picture:
    """One image of an OME-TIFF: its name, its pixels, and the software's words about it."""

    name: str
    levels: Levels
    said: str


def write_ome_tiff(
    path: Path, pictures: Sequence[Picture], mpp: float, corner: tuple[int, int], tick: Tick = _quiet
) -> None:
    """Write images as a pyramidal OME-TIFF: a series each, overviews as SubIFDs, packed by Deflate.

    Parameters
    ----------
    path : Path
    pictures : sequence of Picture
        RGB (rows, columns, 3) uint8, or one channel.
    mpp : float
        µm per pixel.
    corner : tuple of int
        Level-0 pixel of the slide that the images begin at; in µm it is the position of their plane.
    tick : callable
        Called before each tile.
    """
    import tifffile

    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        for picture in pictures:
            finest, *coarser = picture.levels.arrays
            is_rgb = len(finest.shape) == 3
            position = {f"Position{axis}": at * mpp for axis, at in zip("XY", corner, strict=True)}
            told = {
                "axes": "YXS" if is_rgb else "YX",
                "Name": picture.name,
                "Description": picture.said,
                "PhysicalSizeX": mpp,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": mpp,
                "PhysicalSizeYUnit": "µm",
                "Channel": {"Name": picture.name},
                "Plane": position | {"PositionXUnit": "µm", "PositionYUnit": "µm"},
            }
            for number, array in enumerate((finest, *coarser)):
                density = 10_000 / (mpp * 2**number)
                file.write(
                    _tiles(array, tick),
                    shape=array.shape,
                    dtype=array.dtype,
                    tile=(SIDE, SIDE),
                    photometric="rgb" if is_rgb else "minisblack",
                    compression="zlib",
                    predictor=True,
                    resolution=(density, density),
                    resolutionunit="CENTIMETER",
                    **({"subfiletype": 1} if number else {"subifds": len(coarser), "metadata": told}),
                )


def _tiles(array: "zarr.Array[Any]", tick: Tick) -> Iterator[Pixels]:
    for y, x in _places(array.shape):
        tick()
        pixels = np.asarray(array[y : y + SIDE, x : x + SIDE])
        short = [(0, SIDE - pixels.shape[0]), (0, SIDE - pixels.shape[1])]
        yield np.pad(pixels, short + [(0, 0)] * (pixels.ndim - 2))


def _places(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    return ((y, x) for y in range(0, shape[0], SIDE) for x in range(0, shape[1], SIDE))
