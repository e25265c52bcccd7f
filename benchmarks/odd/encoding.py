"""Colours tagged wrongly, byte orders, orientation, compression."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from benchmarks.odd.kind import MPP, TILED, Maker, Picture, section
from tests.slides import tiffs

odd = section("Encoding and orientation")


# Colours tagged wrongly; byte orders
def _bare(stream: bytes) -> bytes:
    """Return a JPEG stream without what tells its colours: no APP0 and APP14, components named 0, 1, 2."""
    out, place = bytearray(stream[:2]), 2
    while stream[place + 1] != 0xDA:
        size = int.from_bytes(stream[place + 2 : place + 4], "big") + 2
        part = bytearray(stream[place : place + size])
        if part[1] == 0xC0:
            part[10::3] = bytes(range(3))
        if part[1] not in (0xE0, 0xEE):
            out += part
        place += size
    scan = bytearray(stream[place:])
    scan[5:11:2] = bytes(range(3))
    return bytes(out + scan)


def _jpeg(colours: str, tagged: int, sampling: str = "444", *, bare: bool = False, **more: Any) -> Maker:
    def make(path: Path, picture: Picture) -> None:
        def tiles() -> Iterator[bytes]:
            for y in range(0, picture.shape[0], 128):
                for x in range(0, picture.shape[1], 128):
                    tile = picture[y : y + 128, x : x + 128]
                    pad = ((0, 128 - tile.shape[0]), (0, 128 - tile.shape[1]), (0, 0))
                    stream = imagecodecs.jpeg8_encode(
                        np.pad(tile, pad, mode="edge"), level=95, colorspace="RGB", outcolorspace=colours,
                        subsampling=sampling,
                    )  # fmt: skip
                    yield _bare(stream) if bare else stream

        with tifffile.TiffWriter(path, **more) as file:
            file.write(tiles(), shape=picture.shape, dtype=np.uint8, compression="jpeg", **TILED, **MPP)
        with tifffile.TiffFile(path, mode="r+") as file:
            file.pages[0].tags[262].overwrite(tagged)

    return make


_TAGGED_RGB, _TAGGED_YCBCR = 2, 6
odd(name="jpeg_ycbcr_tagged_rgb", tolerance=3)(_jpeg("YCbCr", _TAGGED_RGB))
odd(name="jpeg_ycbcr_420_tagged_rgb", tolerance=3)(_jpeg("YCbCr", _TAGGED_RGB, "420"))
odd(name="jpeg_rgb_tagged_ycbcr", tolerance=3)(_jpeg("RGB", _TAGGED_YCBCR))
odd(name="jpeg_rgb_tagged_rgb", tolerance=3)(_jpeg("RGB", _TAGGED_RGB))
odd(name="jpeg_ycbcr_420_tagged_ycbcr", tolerance=3)(_jpeg("YCbCr", _TAGGED_YCBCR, "420"))
for _name, _tag in (("rgb", _TAGGED_RGB), ("ycbcr", _TAGGED_YCBCR)):
    odd(name=f"jpeg_rgb_unmarked_tagged_{_name}", tolerance=3)(_jpeg("RGB", _tag, bare=True))
    odd(name=f"jpeg_ycbcr_unmarked_tagged_{_name}", tolerance=3)(_jpeg("YCbCr", _tag, bare=True))
odd(name="jpeg_big_endian_classic", tolerance=3)(_jpeg("YCbCr", _TAGGED_RGB, "420", byteorder=">"))
odd(name="jpeg_big_endian_big", tolerance=3)(_jpeg("YCbCr", _TAGGED_YCBCR, byteorder=">", bigtiff=True))


@odd(suffix=".jpg", mpp=0.25, tolerance=3)
def jpeg_of_untransformed_colours(path: Path, picture: Picture) -> None:
    path.write_bytes(imagecodecs.jpeg8_encode(picture, level=95, outcolorspace="RGB"))


# Orientation
def _turned(picture: Picture, orientation: int) -> Picture:
    stored = {
        2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1], 5: picture.swapaxes(0, 1),
        6: np.rot90(picture, 1), 7: picture[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(picture, -1),
    }  # fmt: skip
    return np.ascontiguousarray(stored[orientation])


def _orientation_tiff(orientation: int) -> Maker:
    def make(path: Path, picture: Picture) -> None:
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, _turned(picture, orientation), extratags=tag, **TILED, **MPP)

    return make


def _orientation_exif(orientation: int) -> Maker:
    def make(path: Path, picture: Picture) -> None:
        exif = Image.Exif()
        exif[274] = orientation
        options: dict[str, Any] = {"quality": 97, "subsampling": 0} if path.suffix == ".jpg" else {}
        Image.fromarray(_turned(picture, orientation)).save(path, exif=exif, **options)

    return make


for _orientation in range(2, 9):
    odd(name=f"orientation_{_orientation}")(_orientation_tiff(_orientation))
for _orientation in (3, 6):
    odd(name=f"jpeg_exif_orientation_{_orientation}", suffix=".jpg", mpp=0.25, tolerance=3)(
        _orientation_exif(_orientation)
    )
    odd(name=f"png_exif_orientation_{_orientation}", suffix=".png", mpp=0.25)(_orientation_exif(_orientation))


# Compression
def _compressed(compression: str, predictor: bool = False, **more: Any) -> Maker:
    def make(path: Path, picture: Picture) -> None:
        lossless = {"lossless": True} if compression in ("webp", "jpegxl") else {}
        layout = {"photometric": "rgb"} if "rowsperstrip" in more else TILED
        tifffile.imwrite(
            path, picture, compression=compression, compressionargs=lossless, predictor=predictor, **layout,
            **MPP, **more,
        )  # fmt: skip

    return make


for _name in ("lzw", "zlib", "zstd", "packbits", "webp", "jpegxl", "jpeg2000", "lzma", "png"):
    odd(name=f"compressed_{_name}")(_compressed(_name))
for _name in ("lzw", "zlib", "zstd"):
    odd(name=f"compressed_{_name}_predicted_strips_big_endian")(
        _compressed(_name, True, rowsperstrip=64, byteorder=">")
    )


@odd()
def tiles_of_16_pixels(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, tile=(16, 16), photometric="rgb", compression="zlib", **MPP)


@odd()
def tiles_that_are_not_square(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, tile=(64, 256), photometric="rgb", compression="lzw", **MPP)


@odd()
def one_row_a_strip(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, rowsperstrip=1, photometric="rgb", compression="zlib", **MPP)


@odd()
def one_strip_of_all_rows(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, rowsperstrip=picture.shape[0], photometric="rgb", **MPP)


@odd()
def bits_in_reverse_order(path: Path, picture: Picture) -> None:
    reverse = np.array([int(f"{n:08b}"[::-1], 2) for n in range(256)], np.uint8)
    tags = {259: (tiffs.SHORT, [1]), 266: (tiffs.SHORT, [2])}
    tiffs.tiff(path, reverse[picture], encode=lambda tile: tile.tobytes(), tags=tags)


@odd(tolerance=4)
def jpeg_2000_with_quality_layers(path: Path, picture: Picture) -> None:
    def tiles() -> Iterator[bytes]:
        for y in range(0, picture.shape[0], 128):
            for x in range(0, picture.shape[1], 128):
                tile = picture[y : y + 128, x : x + 128]
                pad = ((0, 128 - tile.shape[0]), (0, 128 - tile.shape[1]), (0, 0))
                stream = io.BytesIO()
                Image.fromarray(np.pad(tile, pad, mode="edge")).save(
                    stream, "JPEG2000", no_jp2=True, quality_mode="rates", quality_layers=[40, 20, 5], mct=1,
                    irreversible=True,
                )  # fmt: skip
                yield stream.getvalue()

    with tifffile.TiffWriter(path) as file:
        file.write(
            tiles(),
            shape=picture.shape,
            dtype=np.uint8,
            compression=33005,
            compressionargs=None,
            **TILED,
            **MPP,
        )


@odd(suffix=".jpg", mpp=0.25, tolerance=3)
def jpeg_progressive(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path, quality=97, progressive=True, subsampling=0)


@odd(suffix=".jpg", mpp=0.25, tolerance=3)
def jpeg_with_restarts(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path, quality=97, restart_marker_blocks=4, subsampling=0)


@odd(suffix=".jp2", mpp=0.25)
def jpeg_2000_file(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path, irreversible=False)


@odd("unsuitable")
def ycbcr_without_jpeg(path: Path, picture: Picture) -> None:
    ycbcr = np.asarray(Image.fromarray(picture).convert("YCbCr"))
    tifffile.imwrite(path, ycbcr, **TILED, **MPP)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[262].overwrite(_TAGGED_YCBCR)
