"""OME-Zarr and DICOM."""

from pathlib import Path

import numpy as np
import zarr

from benchmarks.odd.kind import ODD_FILES, SCORED, Picture, section
from tests.slides import dicoms
from tests.slides.zarrs import write_zarr

odd = section("OME-Zarr and DICOM")
ZARR, DICOM = ".ome.zarr", ".dcm"
STAINS = [{"label": n, "color": c} for n, c in (("DAPI", "0000FF"), ("FITC", "00FF00"), ("Cy3", "FF0000"))]


def _zarr(name: str, right: str = SCORED, **options: object) -> None:
    odd(right, suffix=ZARR, name=name)(lambda path, picture: write_zarr(path, picture, **options))


_zarr("zarr_0_4", chunk=128)
_zarr("zarr_0_5_sharded", version="0.5", shard=256, chunk=128)
_zarr("zarr_yxc", axes="yxc", channels_together=True)
_zarr("zarr_fluorescence", "unsuitable", omero=STAINS)
_zarr("zarr_times", "unsuitable", times=2)


@odd(suffix=ZARR)
def zarr_12_bits_in_16(path: Path, picture: Picture) -> None:
    write_zarr(path, picture.astype(np.uint16) << 4)


@odd(suffix=ZARR)
def zarr_planes(path: Path, picture: Picture) -> None:
    write_zarr(path, picture, planes=[255 - picture, picture, 255 - picture])


@odd(suffix=ZARR)
def zarr_with_label_and_macro(path: Path, picture: Picture) -> None:
    root = zarr.create_group(path, zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for number, name in enumerate(("slide", "label image", "macro image")):
        pixels = picture if number == 0 else 255 - picture
        write_zarr(None, pixels, group=root.create_group(str(number)), name=name)


@odd("unsuitable", suffix=ZARR)
def zarr_plate(path: Path, picture: Picture) -> None:
    zarr.create_group(path, zarr_format=2).attrs["plate"] = {"wells": [{"path": "A/1"}]}


_zarr("zarr_c_before_z", axes="tczyx".replace("cz", "zc"))
_zarr("zarr_yx_first", axes="yxc")
_zarr("zarr_in_nanometres", unit="nanometer")
_zarr("zarr_in_no_unit", "resolution", unit=None)


@odd(suffix=ZARR, tolerance=0.6)
def zarr_16_bits(path: Path, picture: Picture) -> None:
    write_zarr(path, picture.astype(np.uint16) * 257)


@odd(suffix=ZARR)
def zarr_moved(path: Path, picture: Picture) -> None:
    attributes = write_zarr(path, picture)
    for dataset in attributes["multiscales"][0]["datasets"]:
        dataset["coordinateTransformations"].append({"type": "translation", "translation": [0, 0, 0, 70, 30]})
    zarr.open_group(path, mode="r+").attrs.update(attributes)


@odd(suffix=ZARR)
def zarr_scale_given_for_all_levels(path: Path, picture: Picture) -> None:
    attributes = write_zarr(path, picture, mpp=1.0, levels=1)
    attributes["multiscales"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [1, 1, 1, 0.25, 0.25]}
    ]
    zarr.open_group(path, mode="r+").attrs.update(attributes)


def _dicom(name: str, right: str = SCORED, tolerance: float = 0.0, **options: object) -> None:
    options["series"] = f"1.2.{len(ODD_FILES)}"  # files of one folder, but no levels of one slide
    make = odd(right, suffix=DICOM, name=name, tolerance=tolerance)
    make(lambda path, picture: dicoms.write_dicom(path, picture, side=128, **options))


_dicom("dicom_jpeg_2000", syntax=dicoms.J2K)
_dicom("dicom_htj2k", syntax=dicoms.HTJ2K)
_dicom("dicom_jpeg_ls", syntax=dicoms.JPEGLS)
_dicom("dicom_rle", syntax=dicoms.RLE)
_dicom("dicom_big_endian", syntax=dicoms.BIG)
_dicom("dicom_deflated", syntax=dicoms.DEFLATED)
_dicom("dicom_ycbcr_tagged_rgb", syntax=dicoms.JPEG, tolerance=3)
_dicom(
    "dicom_rgb_tagged_ycbcr", syntax=dicoms.JPEG, tolerance=3, colours="YBR_FULL_422",
    encode=lambda tile: dicoms.jpeg(tile, "RGB"),
)  # fmt: skip
_dicom("dicom_two_light_paths", "unsuitable", NumberOfOpticalPaths=2)
_dicom("dicom_label", "unsuitable", kind="LABEL")


@odd("unreadable", suffix="")
def dicom_two_series_in_sub_folders(path: Path, picture: Picture) -> None:
    for series in ("1.1", "1.2"):
        (path / series).mkdir(parents=True)
        dicoms.write_dicom(path / series / "a.dcm", picture, series=series)


@odd("unsuitable", suffix=DICOM)
def dicom_grey(path: Path, picture: Picture) -> None:
    dicoms.write_dicom(path, picture[..., :1], colours="MONOCHROME2", series="1.3")


@odd("resolution", suffix=DICOM)
def dicom_without_pixel_spacing(path: Path, picture: Picture) -> None:
    dicoms.write_dicom(path, picture, series="1.4", SharedFunctionalGroupsSequence=[])


@odd(suffix="")
def dicom_in_two_parts(path: Path, picture: Picture) -> None:
    path.mkdir()
    tiles = list(dicoms.tiles_of(picture, 128))
    half = len(tiles) // 2
    for number, (first, frames) in enumerate(((0, tiles[:half]), (half, tiles[half:])), 1):
        dicoms.write_dicom(
            path / f"{number}.dcm", picture, side=128, frames=frames, ConcatenationUID="1.5",
            ConcatenationFrameOffsetNumber=first, InConcatenationNumber=number, InConcatenationTotalNumber=2,
        )  # fmt: skip


@odd("unreadable", suffix="")
def dicom_a_part_missing(path: Path, picture: Picture) -> None:
    dicom_in_two_parts(path, picture)
    (path / "2.dcm").unlink()
