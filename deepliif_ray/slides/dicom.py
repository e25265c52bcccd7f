"""Which series DICOM files are of, read from their headers without a DICOM library."""

import re
from pathlib import Path

from deepliif_ray.errors import SlideUnreadableError

_HEADER = 1 << 20
_LISTED = 5
# Tag (0020,000E), then its length with or without its type, then digits and dots.
_SERIES = re.compile(rb"\x20\x00\x0e\x00(?:UI..|..\x00\x00)([0-9.]{1,64})", re.DOTALL)


def series_of(path: Path) -> str | None:
    """Return the SeriesInstanceUID of a DICOM file, None where its first mebibyte holds none."""
    with path.open("rb") as file:
        found = _SERIES.search(file.read(_HEADER))
    return found[1].decode("ascii") if found else None


def check_one_series(path: Path) -> None:
    """Refuse a DICOM file whose folder holds other series too; for when the folder was asked for.

    Parameters
    ----------
    path : Path
        Any file; nothing is refused unless its name ends in ``.dcm``.

    Raises
    ------
    SlideUnreadableError
        There are several series; the message names a file of each.
    """
    if path.suffix.lower() != ".dcm":
        return
    files = sorted(file for file in path.parent.iterdir() if file.suffix.lower() == ".dcm")
    first: dict[str, str] = {}
    for file in files:
        series = series_of(file)
        if series is not None:
            first.setdefault(series, file.name)
    if len(first) > 1:
        listed = "; ".join(f"{series} ({name})" for series, name in list(first.items())[:_LISTED])
        raise SlideUnreadableError(
            f"{path.parent.name}: the folder holds {len(first)} DICOM series: {listed}; "
            "give the uri of one file of the series that is meant, or one folder a series"
        )
