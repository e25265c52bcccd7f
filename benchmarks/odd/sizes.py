"""Where a file says how large its pixels are."""

from pathlib import Path

import tifffile

from benchmarks.odd.kind import TILED, Picture, ome, section

odd = section("Pixel size in the file")


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


@odd(suffix=".ome.tif")
def pixel_size_in_millimetres(path: Path, picture: Picture) -> None:
    size = {"PhysicalSizeX": 0.00025, "PhysicalSizeY": 0.00025}
    ome(path, picture, "YXS", metadata={**size, "PhysicalSizeXUnit": "mm", "PhysicalSizeYUnit": "mm"})


@odd(suffix=".ome.tif")
def pixel_size_in_inches(path: Path, picture: Picture) -> None:
    size = {"PhysicalSizeX": 0.25 / 25_400, "PhysicalSizeY": 0.25 / 25_400}
    ome(path, picture, "YXS", metadata={**size, "PhysicalSizeXUnit": "in", "PhysicalSizeYUnit": "in"})


@odd("resolution", suffix=".ome.tif")
def pixel_size_in_pixels(path: Path, picture: Picture) -> None:
    unit = {
        "PhysicalSizeX": 1,
        "PhysicalSizeXUnit": "pixel",
        "PhysicalSizeY": 1,
        "PhysicalSizeYUnit": "pixel",
    }
    ome(path, picture, "YXS", metadata=unit)


@odd()
def pixel_size_a_little_longer_one_way(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, resolution=(39_800, 40_201), resolutionunit="CENTIMETER", **TILED)


@odd("resolution")
def resolution_without_a_unit(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, resolution=(40_000, 40_000), resolutionunit="NONE", **TILED)


@odd("resolution")
def resolution_of_nought(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, resolution=((0, 1), (0, 1)), resolutionunit="CENTIMETER", **TILED)


@odd()
def pixel_size_in_the_description(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, description="Scan|AppMag = 40|MPP = 0.25", metadata=None, **TILED)


@odd()
def pixel_size_in_the_description_with_a_comma(path: Path, picture: Picture) -> None:
    tifffile.imwrite(path, picture, description="Scan|AppMag = 40|MPP = 0,25", metadata=None, **TILED)
