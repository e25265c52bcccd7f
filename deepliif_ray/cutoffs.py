"""How dark a cohort's stain is, and cut-offs of its own: proposed from measurements, kept with a name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from deepliif_ray.errors import ConfigError, QueryError
from deepliif_ray.query import ask_all
from deepliif_ray.query.literals import quoted, quoted_list
from deepliif_ray.tables.cutoffs import check_name, write_cutoffs

SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Quantiles that the distribution is shown by."""
CONTROL_SHARE = 0.99
"""Of the cells of negative controls, so many lie below the proposed ``weak``."""


@dataclass(frozen=True)
class Proposal:
    """What was measured, and cut-offs made of it.

    Attributes
    ----------
    table : pyarrow.Table
        One row a marker (and value of the column): ``marker``, the column, ``slides``, ``cells``, quantiles
        of the mean optical density of DAB over counted nuclei, ``weak``, ``moderate``, ``strong``.
    note : str
        How the cut-offs were made, in words.
    url : str or None
        Where they were kept.
    """

    table: pa.Table
    note: str
    url: str | None = None


def propose_cutoffs(
    results: str,
    *,
    marker: str | None = None,
    by: str | None = None,
    controls: Sequence[str] = (),
    quantiles: tuple[float, float, float] = (0.5, 0.75, 0.9),
    save: str | None = None,
    author: str = "",
    overwrite: bool = False,
) -> Proposal:
    """Show the distribution of DAB over a cohort's nuclei, and propose cut-offs for 1+, 2+ and 3+.

    QuPath's defaults belong to its own stain vectors and background, and laboratories stain differently.
    With negative control slides, ``weak`` is the optical density below which `CONTROL_SHARE` of their cells
    lie, and ``moderate`` and ``strong`` part what the cohort has above it in three of equal numbers. Without,
    the three are quantiles of all counted cells: these say how the cohort spreads, not what is stained.

    Parameters
    ----------
    results : str
        URL of the results.
    marker : str, optional
        One marker only.
    by : str, optional
        A column of the manifest, such as site: cut-offs for each of its values.
    controls : sequence of str
        Slides on which the marker is known to be absent.
    quantiles : tuple of three floats
        Used without controls, from 0 to 1.
    save : str, optional
        Keep the cut-offs with the results, by this name.
    author : str
        Who made them.
    overwrite : bool
        Replace a set of that name.

    Raises
    ------
    ConfigError
        The quantiles or the name make no sense.
    QueryError
        There is no such marker, column or control slide, or nothing to measure.
    ResultsError, StorageError
        See `deepliif_ray.query.connect`.
    """
    if save is not None:
        check_name(save)
    if not (0 < quantiles[0] <= quantiles[1] <= quantiles[2] < 1):
        raise ConfigError(f"quantiles are three numbers between 0 and 1 that rise, not {quantiles}")
    where = "true" if marker is None else f"s.marker = {quoted(marker)}"
    value = "NULL::VARCHAR" if by is None else f"s.attributes[{quoted(by)}]"
    answers = ask_all(
        results,
        {
            "controls": f"SELECT unnest({quoted_list(controls)}) AS slide_id "
            f"EXCEPT SELECT slide_id FROM slides AS s WHERE {where}",
            "names": "SELECT DISTINCT unnest(map_keys(attributes)) AS name FROM slides ORDER BY 1",
            "table": _measure(where, value, controls, quantiles),
        },
    )
    if unknown := answers["controls"]["slide_id"].to_pylist():
        raise QueryError(
            f"{results}: no slide {', '.join(unknown)} of this marker; name scored control slides"
        )
    if by is not None and by not in (names := answers["names"]["name"].to_pylist()):
        raise QueryError(f"{results}: no slide has a column {by!r}; there are {', '.join(names) or 'none'}")
    table = answers["table"]
    if not table.num_rows:
        raise QueryError(f"{results}: no counted cell of {marker or 'any marker'} to measure")
    note = _note(controls, quantiles)
    if by is None:
        table = table.drop_columns("value")
    else:
        table = table.rename_columns([by if name == "value" else name for name in table.column_names])
    if save is None:
        return Proposal(table, note)
    rows = [_row(row, by) for row in table.to_pylist()]
    missing = [row["marker"] for row in rows if row["weak"] is None]
    if missing:
        raise QueryError(
            f"{results}: no cut-offs for {', '.join(dict.fromkeys(missing))}: there is no control slide of "
            "it, or no cell above the controls; choose one marker with --marker, or other controls"
        )
    url = write_cutoffs(results, save, rows, author=author, note=note, controls=controls, overwrite=overwrite)
    return Proposal(table, note, url)


def _measure(where: str, value: str, controls: Sequence[str], quantiles: tuple[float, float, float]) -> str:
    """Return SQL for the distribution by marker and value, and the cut-offs."""
    shown = ", ".join(f"quantile_cont(c.dab_od_mean, {q}) AS p{round(100 * q)}" for q in SHOWN)
    names = ("weak", "moderate", "strong")
    if controls:
        parts = ", ".join(
            f"quantile_cont(c.dab_od_mean, {n} / 3) FILTER (c.dab_od_mean >= b.weak) AS {name}"
            for n, name in enumerate(names[1:], start=1)
        )
        strengths = f"any_value(b.weak) AS weak, {parts}"
    else:
        strengths = ", ".join(
            f"quantile_cont(c.dab_od_mean, {q}) AS {name}" for q, name in zip(quantiles, names, strict=True)
        )
    return f"""
        WITH cell AS (
          SELECT c.marker, {value} AS value, c.slide_id, c.dab_od_mean,
            list_contains({quoted_list(controls)}, c.slide_id) AS is_control
          FROM called_cells AS c JOIN slides AS s ON c.slide_id = s.slide_id
          WHERE {where}
        ),
        background AS (
          SELECT marker, quantile_cont(dab_od_mean, {CONTROL_SHARE}) AS weak
          FROM cell WHERE is_control GROUP BY marker
        )
        SELECT c.marker, c.value, count(DISTINCT c.slide_id) AS slides, count(*) AS cells, {shown},
          {strengths}
        FROM cell AS c LEFT JOIN background AS b ON c.marker = b.marker
        WHERE NOT c.is_control
        GROUP BY c.marker, c.value ORDER BY c.marker, c.value NULLS LAST
    """


def _row(row: dict[str, Any], by: str | None) -> dict[str, Any]:
    strengths = {
        key: None if row[key] is None else round(row[key], 4) for key in ("weak", "moderate", "strong")
    }
    if strengths["strong"] is None:
        strengths["weak"] = None
    place = {} if by is None or row[by] is None else {"attribute": by, "value": row[by]}
    return {"marker": row["marker"], **place, **strengths}


def _note(controls: Sequence[str], quantiles: tuple[float, float, float]) -> str:
    if controls:
        return (
            f"weak is where {100 * CONTROL_SHARE:g} % of the cells of {len(controls)} negative control "
            "slides lie below; moderate and strong part the cells above it in three of equal numbers"
        )
    return f"quantiles {', '.join(f'{q:g}' for q in quantiles)} of all counted cells"
