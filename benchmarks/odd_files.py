"""Files of the odd kinds that people have, each made of one picture: what they become is known.

Used by ``tests/slides/test_odd_files.py`` and by ``benchmarks/inputs.py``. To add a kind, write a maker and
register it with what is right: ``scored`` (the picture itself) or the reason of the refusal.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from scipy import ndimage

Picture = NDArray[np.uint8]
Maker = Callable[[Path, Picture], None]
TILED: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb"}
MPP: dict[str, Any] = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}  # 0.25 µm per pixel
OME_MPP: dict[str, Any] = {
    "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm",
}  # fmt: skip
SCORED = "scored"


@dataclass(frozen=True)
class OddFile:
    """A kind of file.

    Attributes
    ----------
    name, suffix : str
    make : callable
        Writes the picture to a path as such a file.
    right : str
        ``scored``, or the reason of the failure that is right.
    tolerance : float
        Mean difference from the picture, in grey levels, that its compression may make.
    manifest : dict
        ``series`` and ``plane`` of the manifest.
    states_mpp : bool
        Whether the file itself says 0.25 µm per pixel.
    """

    name: str
    suffix: str
    make: Maker
    right: str
    tolerance: float
    manifest: dict[str, int]
    states_mpp: bool


ODD_FILES: dict[str, OddFile] = {}


def odd(
    right: str = SCORED,
    *,
    suffix: str = ".tif",
    tolerance: float = 0.0,
    states_mpp: bool = True,
    name: str | None = None,
    **manifest: int,
) -> Callable[[Maker], Maker]:
    """Register a maker."""

    def register(make: Maker) -> Maker:
        known = name or make.__name__
        ODD_FILES[known] = OddFile(known, suffix, make, right, tolerance, manifest, states_mpp)
        return make

    return register


def planes(picture: Picture) -> Picture:
    """Return (3, H, W)."""
    return np.ascontiguousarray(np.moveaxis(picture, 2, 0))


def ome(path: Path, data: NDArray[Any], axes: str, *, tiled: bool = True, **more: Any) -> None:
    """Write an OME-TIFF that says its pixel size in OME-XML alone."""
    metadata = {"axes": axes, **OME_MPP, **more.pop("metadata", {})}
    tile = {"tile": (128, 128)} if tiled else {}
    photometric = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(path, data, ome=True, photometric=photometric, metadata=metadata, **tile, **more)


def sharp_in_the_middle(picture: Picture, count: int = 5) -> Picture:
    """Return a z-stack (count, H, W, 3) whose middle plane is the picture and whose others are blurred."""
    blurs = [abs(n - count // 2) * 3.0 for n in range(count)]
    return np.stack([ndimage.gaussian_filter(picture, (b, b, 0)) if b else picture for b in blurs])


# Colour in planes of its own
@odd()
def colour_planes_tiled(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, planes(picture), planarconfig="separate", **TILED, **MPP)


@odd()
def colour_planes_in_strips(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, planes(picture), planarconfig="separate", photometric="rgb", **MPP)


@odd(suffix=".ome.tif")
def ome_three_grey_pages(path: Path, picture: Picture) -> None:
    ome(path, planes(picture), "CYX")


@odd(suffix=".ome.tif")
def ome_pages_named_red_green_blue(path: Path, picture: Picture) -> None:
    ome(path, planes(picture), "CYX", metadata={"Channel": {"Name": ["Red", "Green", "Blue"]}})


# What is no brightfield colour image
@odd("unsuitable", suffix=".ome.tif")
def ome_fluorescence_of_three_channels(path: Path, picture: Picture) -> None:
    ome(path, planes(picture), "CYX", metadata={"Channel": {"Name": ["DAPI", "FITC", "Cy5"]}})


@odd("unsuitable", suffix=".ome.tif")
def ome_four_channels(path: Path, picture: Picture) -> None:
    ome(path, np.concatenate([planes(picture), planes(picture)[:1]]), "CYX")


@odd("unsuitable", suffix=".ome.tif")
def ome_time_points(path: Path, picture: Picture) -> None:
    ome(path, sharp_in_the_middle(picture, 3), "TYXS")


@odd("unsuitable")
def grey_tiled(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture[..., 1].copy(), tile=(128, 128), photometric="minisblack", **MPP)


@odd("unsuitable")
def grey_in_strips(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture[..., 1].copy(), photometric="minisblack", **MPP)


@odd("unsuitable")
def grey_of_16_bits(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture[..., 1].astype(np.uint16) * 257, tile=(128, 128), **MPP)


@odd("unsuitable")
def white_is_zero(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, 255 - picture[..., 1], tile=(128, 128), photometric="miniswhite", **MPP)


@odd("unsuitable")
def floats(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, (picture / 255).astype(np.float32), **TILED, **MPP)


@odd("unsuitable")
def floats_in_strips(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, (picture / 255).astype(np.float32), photometric="rgb", **MPP)


@odd("unsuitable")
def signed_32_bits(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture[..., 0].astype(np.int32), tile=(128, 128), **MPP)


@odd("unsuitable")
def black_and_white(path: Path, picture: Picture) -> None:
    Image.fromarray(picture[..., 0] > 150).save(path)


@odd("unsuitable")
def six_samples(path: Path, picture: Picture) -> None:
    tifffile.imwrite(
        path, np.dstack([picture, picture]), photometric="minisblack", planarconfig="contig", **MPP
    )


@odd("unsuitable")
def cmyk_tiff(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).convert("CMYK").save(path)


@odd("unsuitable")
def lab_tiff(path: Path, picture: Picture) -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(picture), *profiles, outputMode="LAB")
    assert image is not None
    image.save(path)


@odd("unsuitable", suffix=".png")
def grey_png(path: Path, picture: Picture) -> None:
    Image.fromarray(picture[..., 0]).save(path)


@odd("unsuitable", suffix=".jpg")
def grey_jpeg(path: Path, picture: Picture) -> None:
    Image.fromarray(picture[..., 0]).save(path)


@odd("unsuitable", suffix=".jpg")
def cmyk_jpeg(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).convert("CMYK").save(path)


@odd("unsuitable", suffix=".png")
def animated_png(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path, save_all=True, append_images=[Image.fromarray(picture[::-1])])


# More than 8 bits, transparency, palettes
def _deep(bits: int, byteorder: str) -> Maker:
    def make(path: Path, picture: Picture) -> None:
        deep = (picture.astype(np.float64) / 255 * (2**bits - 1)).round().astype(np.uint16)
        tifffile.imwrite(path, deep, byteorder=byteorder, **TILED, **MPP)

    return make


for _bits, _order in ((10, ">"), (12, "<"), (14, ">"), (16, "<")):
    odd(name=f"colours_of_{_bits}_bits_in_16", tolerance=0.6)(_deep(_bits, _order))


@odd(suffix=".png", states_mpp=False, tolerance=0.6)
def png_of_16_bits(path: Path, picture: Picture) -> None:
    path.write_bytes(imagecodecs.png_encode(picture.astype(np.uint16) * 257))


@odd(suffix=".png", states_mpp=False, tolerance=0.6)
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


@odd(tolerance=12, states_mpp=False)
def palette_tiff(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).quantize(255).save(path)


# Which of several images is the slide
@odd()
def thumbnail_first(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(picture[::8, ::8].copy(), photometric="rgb", subfiletype=1)
        file.write(picture, **TILED, **MPP)


@odd()
def thumbnail_first_untagged(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(picture[::8, ::8].copy(), photometric="rgb")
        file.write(picture, **TILED, **MPP)


@odd()
def label_first(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(np.full((60, 66, 3), 90, np.uint8), photometric="rgb", description="label")
        file.write(picture, **TILED, **MPP)


@odd(suffix=".ome.tif")
def ome_with_label_and_macro(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(picture, metadata={"axes": "YXS", "Name": "slide", **OME_MPP}, **TILED)
        file.write(
            picture[:90, :70].copy(), photometric="rgb", metadata={"axes": "YXS", "Name": "label image"}
        )
        file.write(
            picture[:300, :90].copy(), photometric="rgb", metadata={"axes": "YXS", "Name": "macro image"}
        )


def _fields(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        for turned in (picture[::-1], picture, picture[:, ::-1]):
            file.write(np.ascontiguousarray(turned), photometric="rgb", **MPP)


odd("unsuitable", name="three_fields")(_fields)
odd(name="three_fields_one_chosen", series=1)(_fields)
odd("unsuitable", name="three_fields_a_fourth_asked_for", series=3)(_fields)


@odd("unsuitable")
def fields_of_two_sizes(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(picture[:-100], **TILED, **MPP)
        file.write(picture[:, :-90].copy(), **TILED, **MPP)


@odd()
def pages_as_levels_smallest_first(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        for level in (2, 1, 0):
            small = np.ascontiguousarray(picture[:: 2**level, :: 2**level])
            file.write(small, **TILED, **({} if level else MPP))


@odd(suffix=".ome.tif")
def ome_sub_ifd_pyramid(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(picture, subifds=2, metadata={"axes": "YXS", **OME_MPP}, **TILED)
        for level in (1, 2):
            small = np.ascontiguousarray(picture[:: 2**level, :: 2**level])
            file.write(small, subfiletype=1, **TILED)


@odd(suffix=".ome.tif", tolerance=3)
def ome_sub_ifd_pyramid_big_endian_jpeg(path: Path, picture: Picture) -> None:
    jpeg: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": 97}}
    with tifffile.TiffWriter(path, ome=True, byteorder=">") as file:
        file.write(picture, subifds=1, metadata={"axes": "YXS", **OME_MPP}, **TILED, **jpeg)
        file.write(picture[::2, ::2].copy(), subfiletype=1, **TILED, **jpeg)


# Focal planes
@odd(suffix=".ome.tif")
def ome_z_stack(path: Path, picture: Picture) -> None:
    ome(path, sharp_in_the_middle(picture), "ZYXS")


@odd(suffix=".ome.tif", plane=1)
def ome_z_stack_one_plane_chosen(path: Path, picture: Picture) -> None:
    ome(path, np.roll(sharp_in_the_middle(picture), -1, axis=0), "ZYXS")


@odd("unsuitable", suffix=".ome.tif", plane=5)
def ome_z_stack_a_sixth_plane_asked_for(path: Path, picture: Picture) -> None:
    ome(path, sharp_in_the_middle(picture), "ZYXS")


@odd(suffix=".ome.tif")
def ome_z_stack_of_grey_pages(path: Path, picture: Picture) -> None:
    ome(path, np.moveaxis(sharp_in_the_middle(picture), 3, 1).copy(), "ZCYX")


@odd()
def imagej_z_stack(path: Path, picture: Picture) -> None:
    stack = sharp_in_the_middle(picture, 3)[:, None]
    tifffile.imwrite(path, stack, imagej=True, resolution=(4, 4), metadata={"unit": "um", "axes": "ZCYXS"})


# Colours tagged wrongly; byte orders
def _jpeg(colours: str, tagged: int, sampling: str = "444", **more: Any) -> Maker:
    def make(path: Path, picture: Picture) -> None:
        def tiles() -> Iterator[bytes]:
            for y in range(0, picture.shape[0], 128):
                for x in range(0, picture.shape[1], 128):
                    tile = picture[y : y + 128, x : x + 128]
                    pad = ((0, 128 - tile.shape[0]), (0, 128 - tile.shape[1]), (0, 0))
                    yield imagecodecs.jpeg8_encode(
                        np.pad(tile, pad, mode="edge"), level=95, colorspace="RGB", outcolorspace=colours,
                        subsampling=sampling,
                    )  # fmt: skip

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
odd(name="jpeg_big_endian_classic", tolerance=3)(_jpeg("YCbCr", _TAGGED_RGB, "420", byteorder=">"))
odd(name="jpeg_big_endian_big", tolerance=3)(_jpeg("YCbCr", _TAGGED_YCBCR, byteorder=">", bigtiff=True))


@odd(suffix=".jpg", states_mpp=False, tolerance=3)
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
    odd(name=f"jpeg_exif_orientation_{_orientation}", suffix=".jpg", states_mpp=False, tolerance=3)(
        _orientation_exif(_orientation)
    )
    odd(name=f"png_exif_orientation_{_orientation}", suffix=".png", states_mpp=False)(
        _orientation_exif(_orientation)
    )


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


# Pixel size
@odd(suffix=".ome.tif")
def pixel_size_in_ome_xml_alone(path: Path, picture: Picture) -> None:
    ome(path, picture, "YXS", tiled=False)


@odd(suffix=".ome.tif")
def pixel_size_in_nanometres(path: Path, picture: Picture) -> None:
    unit = {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 250, "PhysicalSizeYUnit": "nm"}
    ome(path, picture, "YXS", metadata=unit)


@odd()
def pixel_size_in_dots_per_inch(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, resolution=(101_600, 101_600), resolutionunit="INCH", **TILED)


@odd("resolution")
def a_print_size_is_no_pixel_size(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, resolution=(300, 300), resolutionunit="INCH", **TILED)


@odd("resolution")
def pixels_that_are_not_square(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, resolution=(40_000, 20_000), resolutionunit="CENTIMETER", **TILED)
