"""One level of an OME-Zarr image: its values, and which of its pixels were never scanned."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LONE_CHANNEL_PX = 4096


@dataclass(frozen=True)
class ZarrLevel:
    """A level.

    Attributes
    ----------
    array : zarr.Array
    axes : str
        A letter an axis of it.
    at : dict
        The index to read of each axis that is neither y, x nor c.
    """

    array: Any
    axes: str
    at: dict[str, int]

    @property
    def height(self) -> int:
        """Height in its own pixels."""
        return int(self.array.shape[self.axes.index("y")])

    @property
    def width(self) -> int:
        """Width in its own pixels."""
        return int(self.array.shape[self.axes.index("x")])

    @property
    def fill(self) -> int:
        """What a chunk that is not there holds."""
        return int(self.array.fill_value or 0)

    def read(self, y: slice, x: slice) -> NDArray[Any]:
        """Return a rectangle as stored, shape (height, width, channels)."""
        where = {"y": y, "x": x, "c": slice(None), **self.at}
        values = np.asarray(self.array[tuple(where[axis] for axis in self.axes)])
        left = [axis for axis in self.axes if axis in "yxc"]
        return values.transpose([left.index(axis) for axis in "yxc"])

    def absent(self, values: NDArray[Any], top: int, left: int) -> NDArray[np.bool_]:
        """Return which pixels of a rectangle lie in chunks without content, shape (height, width).

        Parameters
        ----------
        values : ndarray, shape (height, width, channels)
            What `read` returned of it.
        top, left : int
            Where it begins.

        Raises
        ------
        ValueError
            A chunk of one colour has content where that of another has none: it is lost.
        """
        filled = values == self.fill
        absent = np.zeros(values.shape[:2], np.bool_)
        apart = self._chunk("c") < values.shape[2]
        if not (filled.all(axis=2).any() or (apart and filled.any())):
            return absent
        for y, x in self._parts(values.shape, top, left):
            here = slice(y.start - top, y.stop - top), slice(x.start - left, x.stop - left)
            empty = filled[here].all(axis=(0, 1))
            if not empty.any() or not (empty.all() or apart):
                continue
            whole = self.read(self._all_of("y", y), self._all_of("x", x)) == self.fill
            empty = whole.all(axis=(0, 1))
            if empty.all():
                absent[here] = True
            elif apart and self.fill == 0 and empty.any() and whole[..., 0].size >= _LONE_CHANNEL_PX:
                raise ValueError("a chunk of one colour is absent")
        return absent

    def _chunk(self, axis: str) -> int:
        return max(int(self.array.chunks[self.axes.index(axis)]), 1)

    def _parts(self, shape: tuple[int, ...], top: int, left: int) -> Iterator[tuple[slice, slice]]:
        """Yield the part of each chunk that lies in a rectangle, in the level's pixels."""
        high, wide = self._chunk("y"), self._chunk("x")
        bottom, right = top + shape[0], left + shape[1]
        for y in range(top // high * high, bottom, high):
            for x in range(left // wide * wide, right, wide):
                yield slice(max(y, top), min(y + high, bottom)), slice(max(x, left), min(x + wide, right))

    def _all_of(self, axis: str, part: slice) -> slice:
        """Return the chunk that a part is of."""
        side, size = self._chunk(axis), self.height if axis == "y" else self.width
        start = part.start // side * side
        return slice(start, min(start + side, size))
