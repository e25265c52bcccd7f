"""What files of cells have in common: columns, where coordinates begin, and where it is all from."""

from collections.abc import Mapping
from typing import Any

from deepliif_ray import __version__
from deepliif_ray.annotations.origin import Origin, origin_of
from deepliif_ray.errors import ConfigError
from deepliif_ray.exports.cells import Calls
from deepliif_ray.query.streaming import Stream

MEASURED: dict[str, str] = {
    "area_px": "px",
    "area_um2": "um2",
    "od_mean": "OD x 100",
    "dab_od_mean": "OD",
    "hematoxylin_od_mean": "OD",
    "marker_max": "grey level",
}
"""Measurements of a cell, columns of ``called_cells``, and their units."""
AROUND = (
    "dab_own_od_mean", "hematoxylin_own_od_mean", "rim_px", "rim_dab_od_mean", "rim_stained_percent",
    "cytoplasm_px", "cytoplasm_dab_od_mean",
)  # fmt: skip
"""Further ones, for tables: in the slide's own stains, and around the nucleus; null in old results."""
LABEL = "cell_id + 1"
"""SQL of a cell's number in a label image, where 0 is no cell."""
_TOLD = (
    "slide_id", "patient_id", "marker", "mpp", "mpp_source", "width_px", "height_px", "size_thresh",
    "seg_thresh", "marker_thresh", "model_name", "model_digest", "precision", "config_fingerprint",
    "slide_fingerprint", "software_version", "run_id", "attempt",
)  # fmt: skip


def begins(row: Mapping[str, Any], origin: Origin | None) -> tuple[int, int]:
    """Return where coordinates begin on the slide, level-0 px: at its corner unless asked otherwise.

    Parameters
    ----------
    row : mapping
        The slide's commit record.
    origin : Origin, optional
    """
    left, top, _ = origin_of(row, origin or Origin.SLIDE)
    return left, top


def provenance(row: Mapping[str, Any], calls: Calls, origin: tuple[int, int]) -> dict[str, Any]:
    """Return where cells are from and how they were called: text, numbers and truth values, nothing nested.

    The slide's address is left out: the file may go where the address should not.

    Parameters
    ----------
    row : mapping
        The slide's commit record.
    calls : Calls
    origin : tuple of int
        Where coordinates begin on the slide, level-0 px.
    """
    cutoffs = calls.cutoffs
    if isinstance(cutoffs, Mapping):
        cutoffs = ", ".join(f"{name}={value}" for name, value in cutoffs.items())
    told = {name: row[name] for name in _TOLD if row[name] is not None}
    return told | {
        "committed_at": f"{row['committed_at'].replace(tzinfo=None).isoformat()}Z",
        "warnings": "; ".join(row["warnings"] or ()),
        "cutoffs": cutoffs or "",
        "region": calls.region or "",
        "corrections": calls.corrections,
        "origin_x_px": origin[0],
        "origin_y_px": origin[1],
        "exported_by": f"deepliif_ray {__version__}",
    }


def refuse_more(stream: Stream, row: Mapping[str, Any], source: str, most: int, instead: str) -> None:
    """Refuse a slide of more cells than a format takes that has to be whole in memory.

    Parameters
    ----------
    stream : Stream
    row : mapping
        The slide's commit record.
    source : str
        Of `deepliif_ray.exports.cells.source_of`.
    most : int
    instead : str
        What to do, to end the message.

    Raises
    ------
    ConfigError
        There are more.
    """
    found = stream.table(f"SELECT count(*) AS n FROM {source}", [row["slide_id"], row["marker"]])["n"][
        0
    ].as_py()
    if found > most:
        raise ConfigError(
            f"slide {row['slide_id']!r}: {found:,} cells count, and such a file is made in memory, which is "
            f"enough for {most:,}; {instead}"
        )
