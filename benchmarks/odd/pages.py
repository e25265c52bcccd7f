"""Which of several images is the slide, levels, focal planes."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from benchmarks.odd.kind import MPP, OME_MPP, TILED, Picture, ome, section, sharp_in_the_middle

odd = section("Images of a file, levels, focal planes")


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


# Further pages that are no field
@odd()
def a_mask_of_the_slide_beside_it(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(picture, **TILED, **MPP)
        file.write(picture[..., 0] < 200, photometric="mask", subfiletype=4, tile=(128, 128))


@odd()
def a_label_in_a_sub_ifd(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(picture, subifds=1, **TILED, **MPP)
        file.write(np.full((60, 200, 3), 90, np.uint8), photometric="rgb", subfiletype=1)


@odd()
def exif_and_gps_directories(path: Path, picture: Picture) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    exif.get_ifd(0x8825)[1] = "N"
    exif[282], exif[283], exif[296] = 40_000.0, 40_000.0, 3
    Image.fromarray(picture).save(path, exif=exif)


@odd("unsuitable", suffix=".ome.tif")
def ome_the_slide_as_two_images(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path, ome=True) as file:
        for name in ("scan 1", "scan 2"):
            file.write(picture, metadata={"axes": "YXS", "Name": name, **OME_MPP}, **TILED)


@odd("unsuitable", plane=1)
def plane_of_a_tiff_without_planes(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, **TILED, **MPP)


@odd("unreadable")
def pages_in_a_ring(path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(picture, **TILED, **MPP)
        file.write(picture[::2, ::2].copy(), subfiletype=1, **TILED)
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages[1]
        count = len(page.tags)
        file.filehandle.seek(page.offset + 2 + 12 * count)
        file.filehandle.write(file.pages[0].offset.to_bytes(4, "little"))


@odd("corrupt")
def last_tiles_cut_off(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, **TILED, **MPP)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        last = file.pages[0].dataoffsets[-3]
    path.write_bytes(content[: last + 10])


@odd("same_content", suffix=".png", mpp=0.25, same_pixels=False)
def the_picture_under_another_name(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path)
