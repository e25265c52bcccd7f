"""Deep and transparent pixels, palettes, profiles."""

import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

from benchmarks.odd.kind import MPP, TILED, Maker, Picture, ome, planes, section

odd = section("Depth, transparency, profiles")


# More than 8 bits, transparency, palettes
def _deep(bits: int, byteorder: str) -> Maker:
    def make(path: Path, picture: Picture) -> None:
        deep = (picture.astype(np.float64) / 255 * (2**bits - 1)).round().astype(np.uint16)
        tifffile.imwrite(path, deep, byteorder=byteorder, **TILED, **MPP)

    return make


for _bits, _order in ((10, ">"), (12, "<"), (14, ">"), (16, "<")):
    odd(name=f"colours_of_{_bits}_bits_in_16", tolerance=0.6)(_deep(_bits, _order))


@odd(suffix=".png", mpp=0.25, tolerance=0.6)
def png_of_16_bits(path: Path, picture: Picture) -> None:
    path.write_bytes(imagecodecs.png_encode(picture.astype(np.uint16) * 257))


@odd(suffix=".png", mpp=0.25, tolerance=0.6)
def png_of_12_bits_in_16(path: Path, picture: Picture) -> None:
    path.write_bytes(imagecodecs.png_encode(picture.astype(np.uint16) * 16 + 8))


@odd()
def opaque_alpha(path: Path, picture: Picture) -> None:
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    tifffile.imwrite(path, np.dstack([picture, alpha]), extrasamples=["unassalpha"], **TILED, **MPP)


@odd()
def alpha_of_zero_everywhere(path: Path, picture: Picture) -> None:
    alpha = np.zeros(picture.shape[:2], np.uint8)
    tifffile.imwrite(path, np.dstack([picture, alpha]), extrasamples=["unassalpha"], **TILED, **MPP)


@odd()
def a_fourth_sample_of_no_kind(path: Path, picture: Picture) -> None:
    other = np.zeros(picture.shape[:2], np.uint8)
    tifffile.imwrite(path, np.dstack([picture, other]), extrasamples=["unspecified"], **TILED, **MPP)


@odd(tolerance=12, mpp=0.25)
def palette_tiff(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).quantize(255).save(path)


# Profiles, alpha and odd depths
def _wide_profile() -> bytes:
    """Return a profile of a wide gamut: the one of sRGB, its red and green primaries moved."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag, xyz in ((b"rXYZ", (0.61, 0.31, 0.02)), (b"gXYZ", (0.21, 0.63, 0.06))):
        entry = content.index(tag)
        at = int.from_bytes(content[entry + 4 : entry + 8], "big") + 8
        for n, value in enumerate(xyz):
            content[at + 4 * n : at + 4 * n + 4] = round(value * 65536).to_bytes(4, "big")
    return bytes(content)


@odd()
def tiff_with_a_wide_profile(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, iccprofile=_wide_profile(), **TILED, **MPP)


@odd(suffix=".png", mpp=0.25)
def png_with_a_wide_profile(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path, icc_profile=_wide_profile())


def _with_chunk(name: bytes, body: bytes) -> Maker:
    def make(path: Path, picture: Picture) -> None:
        Image.fromarray(picture).save(path)
        content = path.read_bytes()
        chunk = len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        path.write_bytes(content[:33] + chunk + content[33:])  # behind IHDR

    return make


odd(name="png_that_says_srgb", suffix=".png", mpp=0.25)(_with_chunk(b"sRGB", b"\0"))
odd(name="png_with_the_usual_gamma", suffix=".png", mpp=0.25)(
    _with_chunk(b"gAMA", (45_455).to_bytes(4, "big"))
)
odd("unsuitable", name="png_of_linear_light", suffix=".png", mpp=0.25)(
    _with_chunk(b"gAMA", (100_000).to_bytes(4, "big"))
)
odd(name="png_of_8_bits_of_which_8_count", suffix=".png", mpp=0.25)(_with_chunk(b"sBIT", bytes([8, 8, 8])))


@odd(suffix=".png", mpp=0.25)
def png_with_a_transparent_colour(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path, transparency=(0, 0, 0))


@odd(suffix=".png", mpp=0.25)
def png_interlaced(path: Path, picture: Picture) -> None:
    """Seven passes of Adam7, each with the filter type 0."""
    height, width = picture.shape[:2]
    raw = bytearray()
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    for top, left, down, across in steps:
        for row in picture[top::down, left::across]:
            raw += b"\0" + row.tobytes()
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 1])
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(raw), 1)), (b"IEND", b"")):
        out += len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
    path.write_bytes(out)


@odd(suffix=".png", mpp=0.25, tolerance=0.6)
def png_of_16_bits_with_alpha(path: Path, picture: Picture) -> None:
    opaque = np.full((*picture.shape[:2], 1), 65_535, np.uint16)
    path.write_bytes(imagecodecs.png_encode(np.dstack([picture.astype(np.uint16) * 257, opaque])))


def _fading(picture: Picture) -> tuple[Picture, Picture]:
    """Return the picture's alpha, half in places, and colours that over white give the picture."""
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    light = picture.min(axis=2, keepdims=True) >= 140
    alpha[light] = 128
    over = (picture.astype(float) - 255 * (1 - alpha / 255)) / (alpha / 255)
    return alpha, np.clip(np.rint(over), 0, 255).astype(np.uint8)


@odd(tolerance=0.7)
def alpha_of_a_half(path: Path, picture: Picture) -> None:
    alpha, colours = _fading(picture)
    tifffile.imwrite(path, np.dstack([colours, alpha]), extrasamples=["unassalpha"], **TILED, **MPP)


@odd(tolerance=0.9)
def alpha_of_a_half_multiplied_in(path: Path, picture: Picture) -> None:
    alpha, colours = _fading(picture)
    ready = np.rint(colours * (alpha / 255)).astype(np.uint8)
    tifffile.imwrite(path, np.dstack([ready, alpha]), extrasamples=["assocalpha"], **TILED, **MPP)


@odd("unsuitable", suffix=".ome.tif")
def ome_pages_named_blue_green_red(path: Path, picture: Picture) -> None:
    ome(path, planes(picture[..., ::-1]), "CYX", metadata={"Channel": {"Name": ["Blue", "Green", "Red"]}})


@odd()
def imagej_composite_of_three_channels(path: Path, picture: Picture) -> None:
    metadata = {"unit": "um", "axes": "CYX", "mode": "composite"}
    tifffile.imwrite(path, planes(picture), imagej=True, resolution=(4, 4), metadata=metadata)


@odd("unsuitable")
def white_is_zero_in_colour(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, 255 - picture, **TILED, **MPP)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[262].overwrite(0)


@odd(tolerance=0.6)
def colour_planes_of_16_bits(path: Path, picture: Picture) -> None:
    deep = planes(picture).astype(np.uint16) * 257
    tifffile.imwrite(path, deep, planarconfig="separate", compression="zlib", predictor=True, **TILED, **MPP)


@odd(tolerance=0.6)
def colours_of_8_bits_in_16(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture.astype(np.uint16), **TILED, **MPP)


@odd("unsuitable")
def colours_of_10_bits_packed(path: Path, picture: Picture) -> None:
    bits = np.unpackbits((picture.astype(">u2") << 2).view(np.uint8).reshape(-1, 2), axis=1)[:, 6:]
    rows = bits.reshape(picture.shape[0], -1)
    data = np.packbits(rows, axis=1)
    tifffile.imwrite(path, picture, photometric="rgb", metadata=None, **MPP)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[258].overwrite((10, 10, 10))
        file.pages[0].tags[279].overwrite(data.size)
        file.filehandle.seek(file.pages[0].dataoffsets[0])
        file.filehandle.write(data.tobytes().ljust(picture.size, b"\0"))


@odd("unsuitable", suffix=".jpg", mpp=0.25)
def ycck_jpeg(path: Path, picture: Picture) -> None:
    inks = np.asarray(Image.fromarray(picture).convert("CMYK"))
    path.write_bytes(
        imagecodecs.jpeg8_encode(np.ascontiguousarray(inks), colorspace="CMYK", outcolorspace="YCCK")
    )


@odd("unreadable", suffix=".bmp", mpp=0.25)
def bmp(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path)


@odd("unreadable", suffix=".webp", mpp=0.25)
def webp(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path)


@odd("unsuitable", suffix=".png", mpp=0.25)
def colours_inverted(path: Path, picture: Picture) -> None:
    Image.fromarray(255 - picture).save(path)


@odd("unsuitable", suffix=".png", mpp=0.25)
def three_equal_colours(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).convert("L").convert("RGB").save(path)


@odd("unsuitable")
def colours_of_12_bits_with_one_of_16(path: Path, picture: Picture) -> None:
    deep = picture.astype(np.uint16) << 4
    deep[100, 100] = 65_535
    tifffile.imwrite(path, deep, **TILED, **MPP)
