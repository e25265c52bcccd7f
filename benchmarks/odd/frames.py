"""Tissue within a frame: glass, or the exact black of what a scanner left out."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.odd.kind import Picture, section
from deepliif_ray.slides import write_pyramid

odd = section("Frames of black and of glass")
GLASS = (243, 243, 243)
TURNED = 20


def _framed(picture: Picture, fill: int) -> Picture:
    height, width = picture.shape[:2]
    down, across = height // 3, width // 3
    out = np.full((height + 2 * down, width + 2 * across, 3), fill, np.uint8)
    out[down : down + height, across : across + width] = picture
    return out


def _turned(picture: Picture, fill: tuple[int, int, int]) -> Picture:
    return np.asarray(Image.fromarray(picture).rotate(TURNED, expand=True, fillcolor=fill))


def _png(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path, compress_level=1)


for _name, _fill in (("white", 255), ("glass", 243)):
    odd(name=f"{_name}_frame", suffix=".png", mpp=0.25, same_pixels=False)(
        lambda path, picture, fill=_fill: _png(path, _framed(picture, fill))
    )


@odd(suffix=".png", mpp=0.25, same_pixels=False)
def black_frame(path: Path, picture: Picture) -> None:
    _png(path, _framed(picture, 0))


for _quality in (70, 80, 95):

    @odd(name=f"black_frame_jpeg_pyramid_quality_{_quality}", same_pixels=False)
    def black_frame_jpeg_pyramid(path: Path, picture: Picture, quality: int = _quality) -> None:
        write_pyramid(path, _framed(picture, 0), mpp=0.25, quality=quality)


@odd(suffix=".png", mpp=0.25, same_pixels=False)
def black_band_on_one_side(path: Path, picture: Picture) -> None:
    _png(path, np.concatenate([picture, np.zeros((200, *picture.shape[1:]), np.uint8)]))


@odd(suffix=".png", mpp=0.25, same_pixels=False)
def transparent_frame(path: Path, picture: Picture) -> None:
    opaque = (_framed(np.full_like(picture, 255), 0))[..., :1]
    Image.fromarray(np.concatenate([_framed(picture, 0), opaque], axis=2)).save(path, compress_level=1)


@odd(suffix=".png", mpp=0.25, same_pixels=False)
def turned_on_glass(path: Path, picture: Picture) -> None:
    _png(path, _turned(picture, GLASS))


@odd(suffix=".png", mpp=0.25, same_pixels=False, like="turned_on_glass")
def turned_on_black(path: Path, picture: Picture) -> None:
    _png(path, _turned(picture, (0, 0, 0)))


@odd(suffix=".jpg", mpp=0.25, same_pixels=False, like="turned_on_glass")
def turned_on_black_jpeg(path: Path, picture: Picture) -> None:
    Image.fromarray(_turned(picture, (0, 0, 0))).save(path, quality=85)
