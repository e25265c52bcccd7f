"""Images with known truth: expert centroids, masks, modality images."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.fields import check_mpp

UInt8Array = NDArray[np.uint8]
KINDS = ("auto", "points", "truth", "seg")
MPP_TABLE = "mpp.csv"
"""Name of the table that says the pixel size of the images beside it."""
STRIP = ("ihc", "hematoxylin", "dapi", "lap2", "marker", "seg")
"""Panels of a published strip, left to right."""
_MASKS = ("truth", "seg")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_ALIASES = {"hema": "hematoxylin", "hematoxylin": "hematoxylin"} | {
    name: name for name in ("ihc", "dapi", "lap2", "marker", "seg", "truth")
}


@dataclass(frozen=True)
class Points:
    """Centres of cells.

    Attributes
    ----------
    xy : ndarray of float64, shape (n, 2)
        Px.
    positive : ndarray of bool, shape (n,)
    """

    xy: NDArray[np.float64]
    positive: NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """One image and what is known about it.

    Attributes
    ----------
    name : str
        File or folder, relative to the folder of truths.
    rgb : ndarray of uint8, shape (H, W, 3)
        The IHC.
    points : Points, optional
    mask : ndarray of uint8, shape (H, W, 3), optional
        Red positive, blue negative, green boundary.
    modalities : dict of str to ndarray of uint8, shape (H, W, 3)
        By canonical name: ``hematoxylin``, ``dapi``, ``lap2``, ``marker``.
    mpp : float, optional
        µm per pixel, where the folder or whoever asks says so.
    """

    name: str
    rgb: UInt8Array
    points: Points | None = None
    mask: UInt8Array | None = None
    modalities: Mapping[str, UInt8Array] = field(default_factory=dict)
    mpp: float | None = None


@dataclass(frozen=True)
class Listed:
    """An image of a folder that was not read yet.

    Attributes
    ----------
    name : str
        As `Truth` has it.
    files : dict of str to str
        URLs by panel: ``ihc``, ``points``, ``truth``, ``seg`` and the modalities.
    mpp : float, optional
        µm per pixel.
    """

    name: str
    files: Mapping[str, str]
    mpp: float | None = None


def canonical(modality: str) -> str:
    """Return our name of a modality: ``Hema`` is ``hematoxylin``, others in lower case."""
    return _ALIASES.get(modality.lower(), modality.lower())


def read_truths(folder: str, kind: str = "auto", mpp: float | None = None) -> Iterator[Truth]:
    """Read the images of a folder that have a truth, one by one, by name.

    Layouts, which may be mixed and may lie in sub-folders: ``N.png`` with the centroids ``N.csv`` (columns
    x, y, positive); a sub-folder of panels (``ihc.png`` with ``truth.png`` or ``seg.png`` and any of
    ``hematoxylin``, ``dapi``, ``lap2``, ``marker``); the same panels as ``N.png`` or ``N_ihc.png`` beside
    ``N_seg.png``, …; published strips of six square panels. A table ``mpp.csv`` (columns name, mpp) says the
    µm per pixel of images that lie beside it.

    Parameters
    ----------
    folder : str
        URL.
    kind : {'auto', 'points', 'truth', 'seg'}
        Which truth to read. ``auto``: what there is; ``truth`` before ``seg`` where both are.
    mpp : float, optional
        µm per pixel of images that no ``mpp.csv`` lists.

    Raises
    ------
    ConfigError
        There is nothing to evaluate, an image has no truth of this kind, or a file cannot be used.
    StorageError
        A file cannot be read.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind of truth {kind!r} is not known; use one of {', '.join(KINDS)}")
    return (_read(image, kind) for image in list_images(folder, mpp))


def list_images(folder: str, mpp: float | None = None) -> list[Listed]:
    """List the images of a folder by name, with truth or without; see `read_truths`.

    Raises
    ------
    ConfigError
        There is none, two files are the same panel of one image, or a table ``mpp.csv`` cannot be used: it
        has other columns, a value is no pixel size, an image is listed twice, or one that it lists is not
        there; or it leaves an image out and ``mpp`` is not given.
    StorageError
        A file cannot be read.
    """
    groups: dict[str, dict[str, str]] = {}
    tables = []
    for url in storage.list_files(folder):
        stem, _, suffix = url.rpartition(".")
        if url.rpartition("/")[2] == MPP_TABLE:
            tables.append(url)
            continue
        if f".{suffix.lower()}" in _SUFFIXES:
            group, panel = _split(stem)
        elif suffix.lower() == "csv":
            group, panel = stem, "points"
        else:
            continue
        files = groups.setdefault(group, {})
        if panel in files:
            raise ConfigError(f"{files[panel]} and {url} are both the {panel} of one image; remove one")
        files[panel] = url
    groups = {group: files for group, files in groups.items() if set(files) != {"points"}}
    if not groups:
        raise ConfigError(f"{folder}: no images here; give the folder of images with their truth")
    known: dict[str, float] = {}
    for url in tables:
        known |= _read_mpp(url, groups)
    left_out = [group for group in sorted(groups) if tables and mpp is None and group not in known]
    if left_out:
        raise ConfigError(
            f"{tables[0]}: there is no row for {', '.join(map(_last, left_out))}; add name and mpp (µm per "
            "pixel), or give the mpp of those that are not listed"
        )
    base = folder.rstrip("/")
    if base in groups:  # the folder is itself the one image
        base = base.rpartition("/")[0]
    return [
        Listed(group.removeprefix(f"{base}/"), files, known.get(group, mpp))
        for group, files in sorted(groups.items())
    ]


def _last(group: str) -> str:
    return group.rpartition("/")[2]


def _read_mpp(url: str, groups: Mapping[str, object]) -> dict[str, float]:
    """Return µm per pixel by image, of a table that lies beside the images."""
    parent = url.rpartition("/")[0]
    if parent in groups:  # beside the panels of one image
        parent = parent.rpartition("/")[0]
    found: dict[str, float] = {}
    try:
        table = csv.DictReader(io.StringIO(storage.read_bytes(url).decode("utf-8-sig")))
        rows = [(str(row["name"]), float(row["mpp"])) for row in table]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{url}: not a table of pixel sizes ({error!r}); give columns name (an image's, without its "
            "suffix) and mpp (µm per pixel)"
        ) from error
    for name, value in rows:
        group = f"{parent}/{name}"
        check_mpp(value, f"{url}: {name}")
        if group not in groups:
            raise ConfigError(f"{url}: there is no image {name} beside it; names are without a suffix")
        if group in found:
            raise ConfigError(f"{url}: {name} is listed twice; leave one row")
        found[group] = value
    return found


def _split(stem: str) -> tuple[str, str]:
    """Return which image a file belongs to, and which panel of it the file is."""
    parent, _, name = stem.rpartition("/")
    if name.lower() in _ALIASES:
        return parent, _ALIASES[name.lower()]
    before, _, last = name.rpartition("_")
    if before and last.lower() in _ALIASES:
        return f"{parent}/{before}", _ALIASES[last.lower()]
    return stem, "ihc"


def read_image_of(listed: Listed) -> UInt8Array:
    """Read the IHC image of what `list_images` lists, shape (H, W, 3); of a published strip its first panel.

    Raises
    ------
    ConfigError, StorageError
        As `read_image`; or there is no IHC image among the files.
    """
    return _panels(listed)[0]["ihc"]


def _panels(listed: Listed) -> tuple[dict[str, UInt8Array], Mapping[str, str]]:
    """Return the images of all panels, and their files; a strip is cut."""
    files = listed.files
    if "ihc" not in files:
        raise ConfigError(f"{min(files.values())}: there is no IHC image beside it; add ihc.png")
    panels = {panel: read_image(url) for panel, url in files.items() if panel != "points"}
    height, width = panels["ihc"].shape[:2]
    if set(files) == {"ihc"} and width == len(STRIP) * height:
        strip = np.split(panels["ihc"], len(STRIP), axis=1)
        panels = {panel: np.ascontiguousarray(part) for panel, part in zip(STRIP, strip, strict=True)}
        files = dict.fromkeys(STRIP, files["ihc"])
    return panels, files


def _read(listed: Listed, kind: str) -> Truth:
    panels, files = _panels(listed)
    name = listed.name
    height, width = panels["ihc"].shape[:2]
    for panel, image in panels.items():
        if image.shape != panels["ihc"].shape:
            raise ConfigError(
                f"{files[panel]}: {image.shape[1]} × {image.shape[0]} pixels, but the IHC image has "
                f"{width} × {height}; give panels of one size"
            )
    wanted = _MASKS if kind == "auto" else (kind,)
    mask = next((panels[panel] for panel in wanted if panel in panels), None)
    points = _read_points(files["points"]) if "points" in files and kind in ("auto", "points") else None
    if mask is None and points is None:
        missing = "neither centroids nor a mask" if kind == "auto" else f"no {kind}"
        raise ConfigError(
            f"{files['ihc']}: {missing} beside it; add centroids "
            f"{name}.csv (x, y, positive) or a panel truth.png or seg.png, or give a strip of six panels"
        )
    modalities = {panel: image for panel, image in panels.items() if panel not in ("ihc", *_MASKS)}
    return Truth(name, panels["ihc"], points, mask, modalities, listed.mpp)


def read_image(url: str) -> UInt8Array:
    """Read an image as 8-bit RGB, shape (H, W, 3).

    Raises
    ------
    ConfigError
        The file is not an image that Pillow can decode.
    StorageError
        It cannot be read.
    """
    data = storage.read_bytes(url)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{url}: cannot be decoded as an image ({error}); export it again") from error


def _read_points(url: str) -> Points:
    try:
        rows = list(csv.DictReader(io.StringIO(storage.read_bytes(url).decode("utf-8-sig"))))
        xy = np.array([(float(row["x"]), float(row["y"])) for row in rows], dtype=np.float64).reshape(-1, 2)
        positive = np.array([float(row["positive"]) > 0 for row in rows], dtype=bool)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{url}: not a table of centroids ({error!r}); give columns x, y (px) and positive (1 or 0)"
        ) from error
    return Points(xy, positive)
