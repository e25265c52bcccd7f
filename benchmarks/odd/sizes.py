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
