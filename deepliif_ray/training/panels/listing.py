"""What panels lie at a URL: strips, separate files, or a manifest of them."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import polars as pl

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.training.panels.files import (
    IHC,
    MODALITIES,
    SEG,
    PanelSource,
    check_modalities,
    panel_of,
    refuse,
)

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MANIFESTS = (".csv", ".parquet", ".jsonl", ".ndjson")
STRIP_COLUMN = "strip"


def list_panels(uri: str, modalities: Sequence[str] = MODALITIES) -> list[PanelSource]:
    """Return where the panels at a URL lie; no image is opened.

    - An image is a strip.
    - A manifest (CSV, Parquet or JSON Lines, by its extension) has a row a tile: optionally ``name``, and
      either ``strip`` or ``ihc``, a column a modality, and ``seg``; URLs, relative ones from its folder.
    - A folder and all folders below hold, each by itself, strips, or separate files ``NAME_DAPI.png`` (see
      `deepliif_ray.training.panels.files.panel_of`) whose IHC is ``NAME_IHC.png`` or ``NAME.png``, or one
      tile's files ``ihc.png``, ``dapi.png``, …. What else published software writes beside separate files
      (``NAME_SegOverlaid.png``, …) and modalities that are not wanted are passed over.

    Parameters
    ----------
    uri : str
    modalities : sequence of str
        Names of the wanted modalities.

    Raises
    ------
    ConfigError
        Nothing is there, files of a tile are missing, or the manifest cannot be used; names the files.
    StorageError
        The folder cannot be listed.
    """
    wanted = check_modalities(modalities)
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix in MANIFESTS:
        return _from_manifest(uri, wanted)
    if suffix in IMAGES:
        return [PanelSource(PurePosixPath(uri).stem, (uri,), wanted)]
    start = len(storage.join(uri, ""))
    folders: dict[str, dict[str, str]] = {}
    problems: list[str] = []
    for url in storage.list_files(uri):
        path = PurePosixPath(url[start:])
        if path.suffix.lower() not in IMAGES or path.name.startswith("."):
            continue
        place = "" if path.parent.name == "" else f"{path.parent}/"
        if folders.setdefault(place, {}).setdefault(path.stem, url) != url:
            problems.append(f"{url}: there is another image of this name with another extension")
    sources: list[PanelSource] = []
    for place, files in folders.items():
        sources += _of_folder(place, files, wanted, problems)
    refuse(problems)
    if not sources:
        raise ConfigError(
            f"{uri}: no panels there; give a strip, a folder of PNG, JPEG or TIFF, or a manifest"
        )
    return sources


def _of_folder(
    place: str, files: dict[str, str], modalities: tuple[str, ...], problems: list[str]
) -> Iterator[PanelSource]:
    """Yield the tiles of one folder; ``files`` are URLs by name without extension."""
    tiles: dict[str, dict[str, str]] = {}
    plain = dict(files)
    for stem, url in files.items():
        found = panel_of(stem, modalities)
        if found is None:
            continue
        tile, panel = found
        if tiles.setdefault(tile, {}).setdefault(panel, url) != url:
            problems.append(f"{url}: its tile has another file for the panel {panel}")
        del plain[stem]
    for tile in [tile for tile, panels in tiles.items() if len(panels) == 1 and tile not in plain]:
        plain |= {PurePosixPath(url).stem: url for url in tiles.pop(tile).values()}  # a strip after all
    if not tiles:
        yield from (PanelSource(place + stem, (url,), modalities) for stem, url in plain.items())
        return
    for tile, panels in tiles.items():
        if tile in plain:
            panels.setdefault(IHC, plain[tile])
        missing = [name for name in (IHC, *modalities, SEG) if name not in panels]
        if missing:
            some = next(iter(panels.values()))
            problems.append(f"{some}: beside it no file for {', '.join(missing)} of the same tile")
        else:
            own = PurePosixPath(storage.parent(panels[IHC])).name
            name = place + tile if tile else place.rstrip("/") or own
            yield PanelSource(name, tuple(panels[p] for p in (IHC, *modalities, SEG)), modalities)
    for stem, url in plain.items():
        if not any(stem == tile or stem.startswith(f"{tile}_") or not tile for tile in tiles):
            problems.append(f"{url}: no panels beside it, as other images of this folder have")


def _from_manifest(uri: str, modalities: tuple[str, ...]) -> list[PanelSource]:
    table = _read_table(uri)
    columns = {name.strip().lower(): name for name in table.columns}
    wanted = [STRIP_COLUMN] if STRIP_COLUMN in columns else [IHC, *modalities, SEG]
    missing = [name for name in wanted if name.lower() not in columns]
    if missing:
        raise ConfigError(
            f"{uri}: no column {', '.join(missing)}; give {', '.join([IHC, *modalities, SEG])}, or "
            f"{STRIP_COLUMN} (columns found: {', '.join(table.columns)})"
        )
    sources: list[PanelSource] = []
    problems: list[str] = []
    folder = storage.parent(uri)
    for number, row in enumerate(table.iter_rows(named=True), start=1):
        values = {name: str(row[columns[name.lower()]] or "").strip() for name in wanted}
        empty = [name for name, value in values.items() if not value]
        if empty:
            problems.append(f"{uri}: {', '.join(empty)} of row {number} is empty")
            continue
        files = tuple(storage.resolve(value, folder) for value in values.values())
        name = str(row[columns["name"]] or "").strip() if "name" in columns else ""
        sources.append(PanelSource(name or PurePosixPath(files[0]).stem, files, modalities))
    refuse(problems)
    if not sources:
        raise ConfigError(f"{uri}: has no rows; give one row a tile")
    return sources


def _read_table(uri: str) -> pl.DataFrame:
    content = storage.read_bytes(uri)
    suffix = PurePosixPath(uri).suffix.lower()
    try:
        if suffix == ".csv":
            return pl.read_csv(content, infer_schema=False)
        return pl.read_parquet(content) if suffix == ".parquet" else pl.read_ndjson(content)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ConfigError(f"{uri}: not a readable {suffix[1:]} file ({error})") from error
