"""The slide of a manifest's row: where it is read from, what it is, and opened.

Whoever reads slides does so from here: the engine that scores them, and what shows or exports them later.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepliif_ray import storage
from deepliif_ray.errors import SlideChangedError, SlideMissingError, StorageError
from deepliif_ray.manifest import SlideEntry
from deepliif_ray.slides import Slide, open_guarded


def entry_of(row: Mapping[str, Any]) -> SlideEntry:
    """Return what a manifest said of a committed slide, as far as opening it needs."""
    asked = dict(part.split("=") for part in (row["image_asked"] or "").split())
    number = {name: int(value) for name, value in asked.items()}
    return SlideEntry(
        slide_id=row["slide_id"],
        patient_id=row["patient_id"],
        marker=row["marker"],
        uri=row["uri"],
        mpp=row["mpp"],
        attributes={},
        series=number.get("series"),
        plane=number.get("plane"),
    )


def open_entry(entry: SlideEntry, place: Path | str | None = None) -> Slide:
    """Open the slide of a manifest's row, with the series and plane that it names, in a process of its own.

    Parameters
    ----------
    entry : SlideEntry
    place : path or URL, optional
        What `fetch` returned for it, if it was called already.

    Raises
    ------
    SlideError
        It cannot be opened, or is no brightfield slide; the message says which.
    SlideMissingError, SlideChangedError, StorageError
        As of `fetch`.
    """
    return open_guarded(fetch(entry) if place is None else place, series=entry.series, plane=entry.plane)


def fetch(entry: SlideEntry, expected: str | None = None) -> Path | str:
    """Return a local path of a manifest row's slide, downloading it if need be; a URL if it is read there.

    Parameters
    ----------
    entry : SlideEntry
    expected : str, optional
        The version that the slide must have.

    Raises
    ------
    SlideMissingError
        The slide is not there, or may not be read.
    SlideChangedError
        Its version is another, or it changed during the download.
    StorageError
        The store failed, or there is no room for the slide.
    """
    try:
        return storage.localize(entry.uri, storage.default_cache(), expected)
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(entry, error) from error


def version_of(entry: SlideEntry) -> str:
    """Return the store's version of a manifest row's slide; raises as `fetch`."""
    try:
        return storage.version(entry.uri)
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(entry, error) from error


def content_of(entry: SlideEntry) -> tuple[str, str]:
    """Return fingerprint of the content and version of a manifest row's slide, reading it to its end.

    Raises as `fetch`; `SlideChangedError` also if the slide was written meanwhile.
    """
    version = version_of(entry)
    place = fetch(entry, version)
    try:
        found = storage.content_fingerprint(entry.uri, place)
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(entry, error) from error
    except OSError as error:
        raise StorageError(f"{entry.uri}: cannot be read ({error.strerror or error}); try again") from error
    refuse_change(entry, version)
    return found, version


@contextmanager
def scored_slide(row: Mapping[str, Any], *, accept_changed: bool = False) -> Iterator[Slide]:
    """Open the slide of a commit record, if it is still the one that was scored.

    The store's version tells. If that is another the content is compared, for a copy is the same slide.

    Parameters
    ----------
    row : mapping
    accept_changed : bool
        Open it with other content too, as long as it is as large: for people who are told so, and never for
        what is computed or drawn on it.

    Raises
    ------
    SlideError
        It cannot be opened, or was changed since it was scored.
    StorageError
        The store failed.
    """
    entry = entry_of(row)
    version = version_of(entry)
    place = fetch(entry, version)
    recorded = row["slide_version"]
    # Fingerprints of records without a version are none of the content.
    is_known = accept_changed or recorded is None
    if not is_known and (version != recorded or version.startswith("?")):
        try:
            found = storage.content_fingerprint(entry.uri, place)
        except OSError as error:
            raise StorageError(f"{entry.uri}: cannot be read ({error.strerror or error})") from error
        if found != row["slide_fingerprint"]:
            raise SlideChangedError(f"{entry.uri}: this is not the file that was scored; score it again")
    with open_entry(entry, place) as slide:
        if (slide.width, slide.height) != (row["width_px"], row["height_px"]):
            raise SlideChangedError(
                f"{entry.uri}: {slide.width:,} × {slide.height:,} px, but {row['width_px']:,} × "
                f"{row['height_px']:,} were scored; score it again"
            )
        yield slide


def refuse_change(entry: SlideEntry, version: str) -> None:
    """Refuse a slide that was written since it had this version.

    Raises
    ------
    SlideChangedError
        It was written, be it with the same content: what was read of it may be of either.
    """
    if version_of(entry) != version:
        raise SlideChangedError(
            f"{entry.uri}: the file changed while it was being scored; run again when it is complete"
        )


def _missing(entry: SlideEntry, error: OSError) -> SlideMissingError:
    problem = "may not be read" if isinstance(error, PermissionError) else "no such file"
    return SlideMissingError(f"{entry.uri}: {problem}; correct the manifest's uri or provide the file")
