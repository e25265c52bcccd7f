"""DICOM slides: which files make one, whether it can be scored, and who reads it.

OpenSlide reads the usual ones. `DicomSlide` reads those that it does not, or would show in wrong colours.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openslide
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID, VLWholeSlideMicroscopyImageStorage

from deepliif_ray.errors import SlideUnreadableError, SlideUnsuitableError
from deepliif_ray.slides.dicom_frames import EXPLICIT_LITTLE, JPEG_BASELINE, Frames, is_as_tagged
from deepliif_ray.slides.dicom_slide import DicomSlide
from deepliif_ray.slides.reader import OpenSlideSlide
from deepliif_ray.slides.slide import Slide

MAX_FILES = 10_000
"""Files of a folder that are looked at."""
_LISTED = 5
_LONG = (
    "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "OpticalPathSequence",
    "ReferencedImageSequence", "SourceImageSequence", "DimensionIndexSequence", "IconImageSequence",
)  # fmt: skip
"""What a header says of frames and pixels: long, and of no use without them."""
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


HEADER_FAULTS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RecursionError,
    EOFError,
    struct.error,
)
"""What pydicom raises of a header, which may be damaged in any way."""


@dataclass(frozen=True)
class Instance:
    """A DICOM file of a slide: its path, its header, and where its pixel data begin."""

    path: Path
    header: Any
    start: int

    @property
    def is_slide(self) -> bool:
        """Whether it shows the slide itself, not its label or an overview."""
        return (
            self.header.get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage
            and "VOLUME" in self.header.get("ImageType", ())
        )  # fmt: skip


def read_instance(path: Path) -> Instance | None:
    """Return a DICOM file, None if it is none that can be read."""
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return None
            file.seek(0)
            return Instance(path, dcmread(file, stop_before_pixels=True), file.tell())
    except HEADER_FAULTS:
        return None


def open_dicom(path: Path, *, series: int | None = None, plane: int | None = None) -> Slide:
    """Open the slide that a DICOM file is of, or the one in a folder.

    Parameters
    ----------
    path : Path
        A file, whose series beside it is meant; or a folder, with all of its sub-folders.
    series : int, optional
        Of several series in a folder, which one, from 0 in the order of their UIDs.
    plane : int, optional

    Raises
    ------
    SlideUnreadableError
        There are several series, or no slide; or it is encoded in a way that is not read.
    SlideUnsuitableError
        It is no RGB brightfield image.
    """
    found = _instances(path, series)
    name = path.name
    volumes = _volumes(found, name)
    for instance in volumes:
        _check(instance.header, name)
    frames = [Frames([(i.path, i.header, i.start) for i in parts], name) for parts in _joined(volumes)]
    by_size: dict[tuple[int, int], list[Frames]] = defaultdict(list)
    for image in frames:
        by_size[image.width, image.height].append(image)
    for (width, height), images in by_size.items():
        if len(images) > 1:
            raise SlideUnsuitableError(
                f"{name}: {len(images)} images of {width} × {height} pixels in one series, as of "
                "several optical paths or focal planes; leave one of them in the folder"
            )
    levels = sorted(frames, key=lambda image: -image.width * image.height)
    if _is_usual(volumes, levels):
        try:
            return OpenSlideSlide(volumes[0].path)
        except openslide.OpenSlideError:
            pass  # something else that it does not know
    slide = DicomSlide(path, levels, plane)
    if path.is_dir() and series is not None:
        slide.series = series
    return slide


def header_of(path: Path, series: int | None = None) -> dict[str, Any]:
    """Return the header of a slide's image of level 0, in the form of `Slide.dicom_header`.

    Raises
    ------
    SlideUnreadableError
        As `open_dicom`.
    SlideUnsuitableError
        There is no such image, or it is a concatenation of several files.
    """
    volumes = _volumes(_instances(path, series), path.name)
    parts = max(_joined(volumes), key=lambda parts: _size(parts[0].header))
    if len(parts) > 1:
        raise SlideUnsuitableError(
            f"{path.name}: level 0 is a concatenation of {len(parts)} files, and annotations refer to one; "
            "join them with a DICOM tool first"
        )
    header = parts[0].header
    header.remove_private_tags()
    for keyword in _LONG:
        if keyword in header:
            delattr(header, keyword)
    found: dict[str, Any] = header.to_json_dict(suppress_invalid_tags=True)
    return found


def _size(header: Any) -> int:
    return int(header.get("TotalPixelMatrixColumns") or 0) * int(header.get("TotalPixelMatrixRows") or 0)


def _instances(path: Path, series: int | None) -> list[Instance]:
    """Return the files of the series that is meant; see `open_dicom`."""
    if path.is_dir():
        return _chosen(path, series)
    asked = read_instance(path)
    if asked is None:
        raise SlideUnreadableError(
            f"{path.name}: a damaged or truncated DICOM file; export or copy the file again"
        )
    if asked.header.get("SOPClassUID") == "1.2.840.10008.1.3.10":
        raise SlideUnreadableError(
            f"{path.name}: a DICOMDIR lists slides; give the uri of its folder or of a file"
        )
    uid = asked.header.get("SeriesInstanceUID")
    beside = (read_instance(file) for file in _files(path.parent.iterdir()) if file != path)
    return [
        asked,
        *(other for other in beside if other and other.header.get("SeriesInstanceUID") == uid),
    ]


def _files(entries: Iterable[Path]) -> list[Path]:
    files = sorted(entry for entry in entries if not entry.name.startswith(".") and entry.is_file())
    return files[:MAX_FILES]


def _chosen(folder: Path, series: int | None) -> list[Instance]:
    """Return the files of the folder's series of slides; of the one asked for if there are several."""
    files = _files(folder.rglob("*"))
    instances = [instance for file in files if (instance := read_instance(file)) is not None]
    if not instances:
        raise SlideUnreadableError(
            f"{folder.name}: a folder without DICOM or OME-Zarr in it; give the uri of a slide's file"
        )
    by_series: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        by_series[str(instance.header.get("SeriesInstanceUID"))].append(instance)
    slides = {uid: found for uid, found in sorted(by_series.items()) if any(i.is_slide for i in found)}
    if not slides:
        return instances  # refused for what they are
    if series is None and len(slides) > 1:
        listed = "; ".join(
            f"{uid} ({found[0].path.relative_to(folder).as_posix()})"
            for uid, found in list(slides.items())[:_LISTED]
        )
        raise SlideUnreadableError(
            f"{folder.name}: the folder holds {len(slides)} DICOM series: {listed}; give the uri of "
            "one file of the "
            "series that is meant, its number in the manifest's column series, or one folder a series"
        )
    if series is not None and series >= len(slides):
        raise SlideUnsuitableError(
            f"{folder.name}: series {series} is asked for, but it holds {len(slides)}, counted from 0"
        )
    return list(slides.values())[series or 0]


def _volumes(found: list[Instance], name: str) -> list[Instance]:
    """Return the files that show the slide itself, each once."""
    volumes = {str(i.header.get("SOPInstanceUID")): i for i in reversed(found) if i.is_slide}
    if not volumes:
        kinds = {" ".join(i.header.get("ImageType", ())[2:3]).lower() for i in found} - {""}
        classes = {UID(i.header.get("SOPClassUID", "")).name for i in found}
        said = ", ".join(
            sorted(kinds) if classes == {VLWholeSlideMicroscopyImageStorage.name} else sorted(classes)
        )
        raise SlideUnsuitableError(f"{name}: no image of a slide in this DICOM series but {said or 'none'}")
    return list(reversed(volumes.values()))


def _joined(volumes: list[Instance]) -> list[list[Instance]]:
    """Return the files of each image: several where it is a concatenation, in its order."""
    images: dict[str, list[Instance]] = defaultdict(list)
    for instance in volumes:
        images[str(instance.header.get("ConcatenationUID") or instance.header.SOPInstanceUID)].append(
            instance
        )
    for parts in images.values():
        parts.sort(key=lambda part: int(part.header.get("ConcatenationFrameOffsetNumber") or 0))
    return list(images.values())


def _check(header: Any, name: str) -> None:
    """Refuse what is no RGB brightfield image."""
    colours, samples = header.get("PhotometricInterpretation"), header.get("SamplesPerPixel")
    paths = header.get("OpticalPathSequence") or []
    count = max(int(header.get("NumberOfOpticalPaths") or 1), len(paths))
    light = " ".join(
        str(kind.get("CodeMeaning", ""))
        for path in paths
        for kind in path.get("IlluminationTypeCodeSequence") or []
    )
    what = None
    if colours not in _COLOURS or samples != 3:
        what = f"pixels are {colours}, {samples} a pixel"
    elif header.get("BitsAllocated") not in (8, 16) or header.get("PixelRepresentation"):
        what = f"pixels of {header.get('BitsAllocated')} bits"
    elif count > 1:
        what = f"{count} optical paths"
    elif "fluorescence" in light.lower():
        what = f"light is {light}"
    if what is not None:
        raise SlideUnsuitableError(f"{name}: {what}; only RGB brightfield images are scored")


def _is_usual(volumes: list[Instance], levels: list[Frames]) -> bool:
    """Tell whether OpenSlide shows the slide rightly."""
    return (
        len({instance.path.parent for instance in volumes}) == 1
        and len(levels) == len(volumes)
        and all(image.n_planes == 1 and not image.is_sparse and is_as_tagged(image) for image in levels)
        and all(i.header.file_meta.TransferSyntaxUID in (EXPLICIT_LITTLE, JPEG_BASELINE) for i in volumes)
        and all(i.header.BitsAllocated == 8 and not i.header.get("PlanarConfiguration") for i in volumes)
    )
