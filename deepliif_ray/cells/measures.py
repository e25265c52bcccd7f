"""What is measured of a cell: the rows of ``schemas/cells.yaml`` that have ``measure``.

Such a row says which number of the kernel becomes the column, and how fragments of a cell join in it: by
``sum``, ``min`` or ``max`` of integers, so that the cell is to the last bit what it would be measured whole.
``over`` divides it by another number at the very end, ``scale`` by a constant, and ``needs`` names what there
must be, or it is null: an image, or ``rim`` (the IHC and the size of its pixels). The kernel's line for it is
in `deepliif_ray.cells.fragments`, or in `deepliif_ray.cells.nearest` if it lies around the nucleus.
"""

import hashlib
from collections import namedtuple
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepliif_ray import contracts

_REDUCERS = ("sum", "min", "max")


@dataclass(frozen=True)
class Measurement:
    """A column of the table of cells that comes from the kernel.

    Attributes
    ----------
    column : str
    number : str
        What the kernel counts.
    reduce : {'sum', 'min', 'max'}
        How fragments join.
    over : str, optional
        Number that it is divided by.
    scale : int
        Constant that it is divided by.
    needs : {'marker', 'rgb', 'rim'}, optional
        What must have been measured, or it is null.
    type : pyarrow.DataType
    """

    column: str
    number: str
    reduce: str
    over: str | None
    scale: int
    needs: str | None
    type: pa.DataType

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Measurement":
        """Return what a row of the contract says."""
        said = dict(row["measure"])
        (reduce,) = (name for name in _REDUCERS if name in said)
        return cls(
            column=row["name"],
            number=said.pop(reduce),
            reduce=reduce,
            over=said.pop("over", None),
            scale=said.pop("scale", 1),
            needs=said.pop("needs", None),
            type=pa.type_for_alias(row["type"]),
            **said,
        )

    def values(self, measures: NDArray[np.int64], has: Mapping[str, bool]) -> pa.Array:
        """Return the column of cells whose joined numbers are given, shape (N, len(NUMBERS)).

        A ratio is null where it is divided by 0.
        """
        if self.needs is not None and not has[self.needs]:
            return pa.nulls(len(measures), self.type)
        number = measures[:, M[self.number]]
        if self.over is None and self.scale == 1:
            return pa.array(number.astype(self.type.to_pandas_dtype()))
        if self.over is None:
            return pa.array(number / self.scale)
        divisor = measures[:, M[self.over]] * self.scale
        return pa.array(number / np.maximum(divisor, 1), mask=divisor == 0)


def reducers(rows: Iterable[Measurement]) -> dict[str, str]:
    """Return how fragments join in each number of the kernel; several columns may be made of one."""
    found = {"kind": "min", "touches": "or", "first_y": "first", "first_x": "first"}
    for row in rows:
        if found.setdefault(row.number, row.reduce) != row.reduce:
            raise ValueError(
                f"cells.yaml: {row.column} joins {row.number} by {row.reduce}, another row otherwise"
            )
    return found


_ROWS = contracts.load("cells")["columns"]
COLUMNS = tuple(row["name"] for row in _ROWS)
MEASUREMENTS = tuple(Measurement.of_row(row) for row in _ROWS if "measure" in row)
_REDUCED = reducers(MEASUREMENTS)
NUMBERS = tuple(_REDUCED)
"""Columns of `CoreFragments.measures`: what a fragment is, the sides it touches, its first pixel in row
order, and the numbers of `MEASUREMENTS`."""
M = {name: i for i, name in enumerate(NUMBERS)}
"""Column of each number."""
At = namedtuple("At", sorted(NUMBERS))  # type: ignore[misc]
AT = At(**M)
"""The same for kernels. It is handed to them, and in an order of its own: what a kernel takes from modules is
compiled in, and stays so on disk when the contract has changed."""
MINIMA, MAXIMA = (
    [M[name] for name, reduce in _REDUCED.items() if reduce == wanted] for wanted in ("min", "max")
)
DIGEST = hashlib.sha256(repr(_REDUCED).encode()).hexdigest()[:8]
"""Differs whenever a fragment holds other numbers."""
