"""Which files below a folder are slides: what people put there, not companions and what systems leave."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from deepliif_ray import storage
from deepliif_ray.jobs.pattern import PathPattern
from deepliif_ray.manifest import Record

_SYSTEM = frozenset((
    "@eadir", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found",
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini",
))  # fmt: skip
"""Names of files and folders that systems make beside those of people."""
SUFFIXES = frozenset((
    ".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi", ".dcm",
    ".png", ".jpg", ".jpeg",
))  # fmt: skip
"""Names of files that are taken for slides; others are companions or none of our business."""


@dataclass
class Found:
    """A slide that was found: its URL, its path below the scanned folder, and what is known of it."""

    uri: str
    path: str
    row: Record = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Listing:
    """Slides that were found, how many other files there are, and how many were passed over unlooked at."""

    slides: list[Found]
    others: int
    hidden: int


def find_slides(source: str, patterns: list[PathPattern]) -> Listing:
    """Return what lies below ``source``.

    A DICOM slide is all ``.dcm`` files of a folder, an OME-Zarr slide a folder called ``.zarr``; either is
    named by the folder. Files in the folder of a ``.mrxs``, and pictures beside a ``.vms`` or ``.vmu``, are
    parts of that slide.
    """
    slides: dict[str, Found] = {}
    others = hidden = 0
    listed = [(url, url[len(source) :].lstrip("/")) for url in storage.list_files(source)]
    parts_of = _companions([path for _, path in listed])
    for url, path in listed:
        if _is_hidden(path):
            hidden += 1
            continue
        zarr = _zarr_folder(path)
        if zarr is not None:
            url, path = storage.join(source, zarr), zarr  # noqa: PLW2901
            if url in slides:
                continue
        fields = next((found for p in patterns if (found := p.match(path)) is not None), None)
        suffix = PurePosixPath(path).suffix.lower()
        if zarr is None and (parts_of(path) or (fields is None and suffix not in SUFFIXES)):
            others += 1
            continue
        slide = Found(url, path, fields or {})
        if suffix == ".dcm":
            slide.uri, slide.path = storage.parent(url), str(PurePosixPath(path).parent)
        first = slides.setdefault(slide.uri, slide)
        if fields is None:
            first.problem = f"{path} does not fit {' or '.join(repr(p.text) for p in patterns)}"
        elif fields != first.row and not first.problem:
            first.problem = "several DICOM slides in one folder; give each a folder of its own"
    return Listing(list(slides.values()), others, hidden)


def _is_hidden(path: str) -> bool:
    """Tell whether a path below the folder is of no person's making: ``._a.svs``, ``@eaDir/…``, ``~$a``."""
    return any(
        part.startswith((".", "~$")) or part.casefold() in _SYSTEM or part.casefold().startswith(".trash")
        for part in _before_zarr(PurePosixPath(path).parts)
    )


def _before_zarr(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parts of a path up to a ``.zarr`` folder, inside which names with dots are usual."""
    ends = (n for n, part in enumerate(parts[:-1], start=1) if part.lower().endswith(".zarr"))
    return parts[: next(ends, len(parts))]


def _zarr_folder(path: str) -> str | None:
    parts = PurePosixPath(path).parts
    before = _before_zarr(parts)
    return "/".join(before) if len(before) < len(parts) else None


def _companions(paths: list[str]) -> Callable[[str], bool]:
    """Return what tells whether a file is a part of a slide that another file names."""
    suffixes: dict[str, set[str]] = {}
    for path in paths:
        pure = PurePosixPath(path)
        suffixes.setdefault(pure.suffix.lower(), set()).add(str(pure.with_suffix("")))
    mirax = suffixes.get(".mrxs", set())
    hamamatsu = {str(PurePosixPath(p).parent) for s in (".vms", ".vmu") for p in suffixes.get(s, ())}

    def is_part(path: str) -> bool:
        pure = PurePosixPath(path)
        if any(str(folder) in mirax for folder in pure.parents):
            return True
        return str(pure.parent) in hamamatsu and pure.suffix.lower() in (".jpg", ".jpeg", ".opt")

    return is_part
