"""Coarse levels that do not show what level 0 shows."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from benchmarks.odd.kind import MPP, TILED, Picture, section

odd = section("Coarse levels")
SIDE = 128


def _tiles(picture: Picture, lacking: tuple[int, ...]) -> Iterator[bytes]:
    number = 0
    for y in range(0, picture.shape[0], SIDE):
        for x in range(0, picture.shape[1], SIDE):
            tile = picture[y : y + SIDE, x : x + SIDE]
            pad = ((0, SIDE - tile.shape[0]), (0, SIDE - tile.shape[1]), (0, 0))
            whole = np.ascontiguousarray(np.pad(tile, pad, mode="edge"))
            yield b"" if number in lacking else zlib.compress(whole.tobytes(), 1)
            number += 1


def _coarse(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).reduce(4))


def _write(
    path: Path, picture: Picture, coarse: Picture, lacking: tuple[int, ...] = (), *more: Picture
) -> None:
    with tifffile.TiffWriter(path) as file:
        for n, (level, lacks) in enumerate([(picture, ()), (coarse, lacking), *((m, ()) for m in more)]):
            file.write(
                _tiles(level, lacks), shape=level.shape, dtype=np.uint8, compression="zlib",
                subfiletype=int(n > 0), **TILED, **({} if n else MPP),
            )  # fmt: skip


@odd()
def coarse_level(path: Path, picture: Picture) -> None:
    _write(path, picture, _coarse(picture))


@odd()
def coarse_level_lacks_tiles(path: Path, picture: Picture) -> None:
    _write(path, picture, _coarse(picture), (0, 1, 4))


@odd()
def coarse_level_lacks_every_tile(path: Path, picture: Picture) -> None:
    _write(path, picture, _coarse(picture), tuple(range(10_000)))


@odd()
def coarse_level_white_in_part(path: Path, picture: Picture) -> None:
    coarse = _coarse(picture).copy()
    coarse[:, : coarse.shape[1] // 2] = 240
    _write(path, picture, coarse)


@odd()
def coarse_level_white(path: Path, picture: Picture) -> None:
    _write(path, picture, np.full_like(_coarse(picture), 255))


@odd()
def coarse_level_black(path: Path, picture: Picture) -> None:
    _write(path, picture, np.zeros_like(_coarse(picture)))


@odd()
def coarse_level_upside_down(path: Path, picture: Picture) -> None:
    _write(path, picture, np.ascontiguousarray(_coarse(picture)[::-1]))


@odd()
def coarse_level_of_other_colours(path: Path, picture: Picture) -> None:
    _write(path, picture, np.ascontiguousarray(_coarse(picture)[..., ::-1]))


@odd()
def coarse_level_shifted(path: Path, picture: Picture) -> None:
    _write(path, picture, np.roll(_coarse(picture), 40, axis=1))


@odd()
def macro_among_the_levels(path: Path, picture: Picture) -> None:
    _write(path, picture, _coarse(picture), (), np.full((40, 120, 3), 60, np.uint8))


@odd()
def the_slide_twice(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(picture, **TILED, **MPP)
        file.write(_coarse(picture), subfiletype=1, **TILED)
        file.write(_coarse(picture), subfiletype=1, **TILED)
