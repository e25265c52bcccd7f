"""Colour in planes, grey, fluorescence."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageCms

from benchmarks.odd.kind import MPP, TILED, Picture, ome, planes, section, sharp_in_the_middle

odd = section("Colours")


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
def ome_colours_in_three_files(path: Path, picture: Picture) -> None:
    names = [path.name, f"green-{path.name}", f"blue-{path.name}"]
    height, width = picture.shape[:2]
    parts = "".join(
        f'<TiffData FirstC="{c}" IFD="0"><UUID FileName="{name}">urn:uuid:{c}</UUID></TiffData>'
        for c, name in enumerate(names)
    )
    channels = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(3))
    for c, name in enumerate(names):
        text = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{c}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
            f'Type="uint8" SizeX="{width}" SizeY="{height}" SizeC="3" SizeZ="1" SizeT="1">'
            f"{channels}{parts}</Pixels></Image></OME>"
        )
        plane = np.ascontiguousarray(picture[..., c])
        options = {"tile": (128, 128), "photometric": "minisblack", "metadata": None}
        tifffile.imwrite(path.parent / name, plane, description=text, **options)


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
