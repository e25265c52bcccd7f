"""Which cell a correction is about."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from deepliif_ray.annotations.slide_cells import cells_of

COLUMNS = ("cell_id", "x", "y", "bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1", "area_px", "boundary")
_SQUARE = 64


def match(
    results: str,
    row: dict[str, Any],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    reach_um: NDArray[np.float64],
) -> list[tuple[int | None, float | None]]:
    """Find the cell of a slide that each position means.

    That is the cell whose outline encloses the pixel of the position, or passes through it: of several the
    smallest, then that with the nearer centroid, then the first. Where there is none it is the cell with the
    nearest centroid within reach; of several as near, the first.

    Parameters
    ----------
    results : str
        URL of the results.
    row : dict
        The slide's commit record.
    x, y : ndarray of float64, shape (N,)
        Level-0 pixels, as x and y of ``cells``: a pixel is named by its centre.
    reach_um : ndarray of float64, shape (N,)
        Micrometres.

    Returns
    -------
    list of (int or None, float or None)
        cell_id, and the distance from the position to its centroid in micrometres; None where no cell is.

    Raises
    ------
    ResultsError
        The slide's cells are gone or damaged.
    StorageError
        The store does not answer.
    """
    reach = reach_um / row["mpp"]
    near = _Near(x, y, float(reach.max(initial=0.0)), row)
    found = [np.empty((0, 5))]
    for table in cells_of(results, row, COLUMNS):
        cells = {name: table.column(name).to_numpy() for name in COLUMNS[:-1]}
        keep = near.may_mean(cells)
        if keep.size:
            boundary = table.column("boundary").take(keep).to_pylist()
            found.append(_candidates(near, {n: values[keep] for n, values in cells.items()}, boundary, reach))
    pairs = np.concatenate(found)
    # By position; those that enclose it first, then by size, distance and cell.
    order = np.lexsort((pairs[:, 4], pairs[:, 3], pairs[:, 2], pairs[:, 1], pairs[:, 0]))
    pairs = pairs[order]
    positions, first = np.unique(pairs[:, 0].astype(np.int64), return_index=True)
    answer: list[tuple[int | None, float | None]] = [(None, None)] * len(x)
    for position, best in zip(positions.tolist(), pairs[first].tolist(), strict=True):
        answer[position] = int(best[4]), best[3] * row["mpp"]
    return answer


class _Near:
    """Positions, and a quick look at which cells may be meant by one of them."""

    def __init__(
        self, x: NDArray[np.float64], y: NDArray[np.float64], reach: float, row: dict[str, Any]
    ) -> None:
        self.x, self.y, self.reach = x, y, reach
        self._last = row["width_px"] // _SQUARE + 1, row["height_px"] // _SQUARE + 1
        counts = np.zeros((self._last[1] + 2, self._last[0] + 2), np.int32)
        np.add.at(counts, (self._at(y, 1) + 1, self._at(x, 0) + 1), 1)
        self._sums = counts.cumsum(0).cumsum(1)
        self.tree = shapely.STRtree(shapely.points(x, y))

    def _at(self, values: NDArray[Any], axis: int) -> NDArray[np.int64]:
        return np.clip(np.floor(values / _SQUARE).astype(np.int64), 0, self._last[axis])

    def may_mean(self, cells: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Return the places of cells that have a position in their box, or within reach."""
        x0, x1 = (
            self._at(cells["bbox_x0"] - self.reach - 1, 0),
            self._at(cells["bbox_x1"] + self.reach + 1, 0),
        )
        y0, y1 = (
            self._at(cells["bbox_y0"] - self.reach - 1, 1),
            self._at(cells["bbox_y1"] + self.reach + 1, 1),
        )
        sums = self._sums
        return np.flatnonzero(sums[y1 + 1, x1 + 1] - sums[y0, x1 + 1] - sums[y1 + 1, x0] + sums[y0, x0])


def _candidates(
    near: _Near, cells: dict[str, NDArray[Any]], boundary: list[bytes], reach: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return position, 0 if the cell encloses it and else 1, size, distance in px and cell_id, (N, 5)."""
    margin = near.reach + 1
    boxes = shapely.box(
        cells["bbox_x0"] - margin,
        cells["bbox_y0"] - margin,
        cells["bbox_x1"] + margin,
        cells["bbox_y1"] + margin,
    )
    cell, position = near.tree.query(boxes)
    distance = np.hypot(cells["x"][cell] - near.x[position], cells["y"][cell] - near.y[position])
    # The pixel that the position lies in.
    x, y = np.floor(near.x[position] + 0.5), np.floor(near.y[position] + 0.5)
    in_box = (cells["bbox_x0"][cell] <= x) & (x < cells["bbox_x1"][cell])
    in_box &= (cells["bbox_y0"][cell] <= y) & (y < cells["bbox_y1"][cell])
    encloses = np.zeros(len(cell), bool)
    tried = np.flatnonzero(in_box)
    if tried.size:
        # Many outlines touch themselves: made valid, they keep every pixel of theirs, if only as lines.
        shapes = shapely.make_valid(shapely.from_wkb([boundary[n] for n in cell[tried]], on_invalid="ignore"))
        encloses[tried] = shapely.intersects(shapes, shapely.points(x[tried], y[tried]))
    keep = encloses | (distance <= reach[position])
    size = np.where(encloses, cells["area_px"][cell], 0)  # of those that do not, distance decides
    pairs = np.stack([position, ~encloses, size, distance, cells["cell_id"][cell]], axis=1)
    kept: NDArray[np.float64] = pairs[keep].astype(np.float64)
    return kept
