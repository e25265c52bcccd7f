"""The published tile grid: where tiles lie and which pixels each one owns.

Tiles overlap; the *core* of a tile is the part of the result that published software takes from it. Cores
partition the image. Everything is separable: a tile of column i and row j owns the product of what column i
owns along x and row j along y.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from deepliif_ray.errors import ConfigError


def default_overlap(tile: int) -> int:
    """Return the published overlap of whole-slide tiles, in pixels: a sixteenth of the tile."""
    return tile // 16


def published_positions(length: int, tile: int, overlap: int) -> list[int]:
    """Return where published software puts tiles along one axis, in its order.

    Tiles advance by ``tile - 2 * overlap``; one that would stick out is moved inwards, so the last positions
    can repeat. An axis not longer than the tile has one position.

    Parameters
    ----------
    length : int
        Pixels of the image along the axis.
    tile, overlap : int
        Pixels of a tile's side, and of the margin its neighbours share on each side.

    Raises
    ------
    ConfigError
        The sizes leave no pixel to advance by.
    """
    check_tile(tile, overlap)
    if length <= tile:
        return [0]
    return [min(start, length - tile) for start in range(0, length, tile - 2 * overlap)]


def check_tile(tile: int, overlap: int) -> None:
    """Raise ConfigError unless ``tile`` and ``overlap`` (pixels) make a grid."""
    if tile <= 0:
        raise ConfigError(f"tile size {tile}: must be at least 1 pixel")
    if overlap < 0 or tile - 2 * overlap <= 0:
        raise ConfigError(f"overlap {overlap}: must be at least 0 and less than half the tile size {tile}")


@dataclass(frozen=True)
class Tile:
    """One tile that owns pixels.

    Parameters
    ----------
    index, column, row : int
        Place in the grid; ``index`` counts row by row over tiles that own pixels.
    x, y : int
        Top left pixel of the square that is read. It sticks out of an image smaller than the tile.
    core : tuple of int
        ``x0, y0, x1, y1`` of the pixels it owns, half-open.
    """

    index: int
    column: int
    row: int
    x: int
    y: int
    core: tuple[int, int, int, int]

    @property
    def core_px(self) -> int:
        """Number of pixels that it owns."""
        x0, y0, x1, y1 = self.core
        return (x1 - x0) * (y1 - y0)


@dataclass(frozen=True)
class TileGrid:
    """The tiles of an image that own pixels, row by row.

    Parameters
    ----------
    width, height : int
        Size of the image in level-0 pixels.
    tile, overlap : int
        Side of a tile and margin shared with each neighbour, in level-0 pixels.

    Raises
    ------
    ConfigError
        The image is empty or the sizes make no grid.
    """

    width: int
    height: int
    tile: int
    overlap: int

    def __post_init__(self) -> None:
        check_tile(self.tile, self.overlap)
        if self.width <= 0 or self.height <= 0:
            raise ConfigError(f"image of {self.width} × {self.height} pixels: there is nothing to tile")

    @cached_property
    def _columns(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return _owners(self.width, self.tile, self.overlap)

    @cached_property
    def _rows(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return _owners(self.height, self.tile, self.overlap)

    @property
    def column_starts(self) -> tuple[int, ...]:
        """Left pixel of the tiles of each column."""
        return self._columns[0]

    @property
    def row_starts(self) -> tuple[int, ...]:
        """Top pixel of the tiles of each row."""
        return self._rows[0]

    @property
    def column_edges(self) -> tuple[int, ...]:
        """Boundaries between the cores of columns: ``n_columns + 1`` values from 0 to ``width``."""
        return self._columns[1]

    @property
    def row_edges(self) -> tuple[int, ...]:
        """Boundaries between the cores of rows: ``n_rows + 1`` values from 0 to ``height``."""
        return self._rows[1]

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return len(self.column_starts)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.row_starts)

    def __len__(self) -> int:
        return self.n_columns * self.n_rows

    def __getitem__(self, index: int) -> Tile:
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} of a grid of {len(self)} tiles")
        row, column = divmod(index, self.n_columns)
        xs, ys = self.column_edges, self.row_edges
        core = (xs[column], ys[row], xs[column + 1], ys[row + 1])
        return Tile(index, column, row, self.column_starts[column], self.row_starts[row], core)

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))

    def outer_sides(self, index: int) -> tuple[bool, bool, bool, bool]:
        """Tell which sides (left, top, right, bottom) of a tile's core lie on the image's border."""
        tile = self[index]
        return (
            tile.column == 0,
            tile.row == 0,
            tile.column == self.n_columns - 1,
            tile.row == self.n_rows - 1,
        )


def _owners(length: int, tile: int, overlap: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the positions that own pixels along one axis, and the boundaries of what they own.

    A tile writes from its start plus the overlap (the first one from 0) and later tiles overwrite earlier
    ones, so it owns up to where the next one begins to write. A repeated position leaves nothing to all but
    the last of its kind.
    """
    positions = published_positions(length, tile, overlap)
    begins = [start + overlap if start else 0 for start in positions]
    ends = [*begins[1:], length]
    owners = [
        (start, begin) for start, begin, end in zip(positions, begins, ends, strict=True) if end > begin
    ]
    return tuple(start for start, _ in owners), (*(begin for _, begin in owners), length)
