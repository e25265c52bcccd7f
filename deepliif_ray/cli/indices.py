"""The command that shows indices."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepliif_ray.cli.common import (
    CutoffsOption,
    FormatOption,
    OutputOption,
    RegionOption,
    WithoutCorrectionsOption,
    app,
    command_name,
)
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import Format, chosen_format, errors, show
from deepliif_ray.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa


@app.command()
def index(
    results: ResultsArgument,
    marker: Annotated[str | None, typer.Option(help="One marker only; aliases such as MIB-1 work.")] = None,
    patient: Annotated[str | None, typer.Option(help="One patient only, by the manifest's id.")] = None,
    slides: Annotated[bool, typer.Option("--slides", help="A row a slide, not a row a patient.")] = False,
    by: Annotated[
        str | None,
        typer.Option(help="A column of the manifest, such as site: how patients spread at each value."),
    ] = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show the marker indices of patients: percent positive cells with a 95 % interval, and density.

    The interval knows that cells cluster. The table on the screen is short; --format csv or --output have
    every column. Other scores are asked in SQL: docs/scores.md.
    """
    from deepliif_ray.query import ask_all, scored
    from deepliif_ray.query.literals import quoted
    from deepliif_ray.scoring.markers import registry_with
    from deepliif_ray.tables.cohort import read_markers

    if by is not None and slides:
        raise typer.BadParameter("--by is about patients; leave out --slides")
    form = chosen_format(form, output)
    conditions = {}
    if marker is not None:
        conditions["marker"] = registry_with(read_markers(results), results).read(marker)[0].name
    if patient is not None:
        conditions["patient_id"] = patient
    where = " AND ".join(f"{name} = {quoted(value)}" for name, value in conditions.items()) or "true"
    slide_source, patient_source = (
        scored(f"{name}_indices", cutoffs=cutoffs, region=region, corrections=not without_corrections)
        for name in ("slide", "patient")
    )
    source = slide_source if slides else patient_source
    answers = ask_all(
        results,
        {
            "indices": f"SELECT * FROM {source} WHERE {where}"
            if by is None
            else _spread(by, where, slide_source),
            "left": f"SELECT slide_id FROM leftovers WHERE {where}",
            "markers": "SELECT DISTINCT marker FROM slides ORDER BY 1",
            "found": f"SELECT count(*) AS n FROM slides WHERE {where}",
            "attributes": "SELECT DISTINCT unnest(map_keys(attributes)) AS name FROM slides ORDER BY 1",
        },
    )
    table, left = answers["indices"], answers["left"].num_rows
    if by is not None and by not in (names := answers["attributes"]["name"].to_pylist()):
        raise QueryError(f"no slide has a column {by!r}; there are {', '.join(names) or 'none'}")
    if not answers["found"]["n"][0].as_py():
        known = ", ".join(answers["markers"]["marker"].to_pylist()) or "none"
        wanted = " and ".join(
            f"{name} {value!r}" for name, value in (("marker", marker), ("patient", patient)) if value
        )
        errors.print(f"no slides of {wanted or 'these results'}; markers there are: {known}", markup=False)
    if form is Format.TABLE and by is None:
        table, notes = _short(table)
        show(table, form, output)
        for line in notes:
            errors.print(line, markup=False)
    else:
        show(table, form, output)
    if left:
        errors.print(
            f"warning: {left} slides in these indices are not in the newest manifest; see `{command_name()} "
            "status`, and `score --prune` to leave them out",
            markup=False,
        )


def _spread(column: str, where: str, source: str) -> str:
    """Return SQL for the spread of patients' indices over the values of a manifest's column.

    A patient's slides of one value are pooled, as in ``patient_indices``. A patient whose index cannot be
    told (no cell was counted, or cells are lost) is counted, and is in no quantile.
    """
    from deepliif_ray.query.literals import quoted, quoted_name

    return f"""
        WITH of_patients AS (
          SELECT i.marker, s.attributes[{quoted(column)}] AS value, i.patient_id, count(*) AS n_slides,
            CASE WHEN count(i.n_called) = count(*)
              THEN 100 * sum(i.n_positive) / nullif(sum(i.n_called), 0) END AS index_percent
          FROM (FROM {source} WHERE {where}) AS i JOIN slides AS s USING (slide_id)
          GROUP BY ALL
        )
        SELECT marker, value AS {quoted_name(column)}, count(*) AS patients,
          count(*) - count(index_percent) AS no_index, sum(n_slides)::BIGINT AS slides,
          min(index_percent) AS min, quantile_cont(index_percent, 0.25) AS q1,
          median(index_percent) AS median, quantile_cont(index_percent, 0.75) AS q3,
          max(index_percent) AS max
        FROM of_patients GROUP BY ALL ORDER BY marker, value NULLS LAST
    """


def _short(table: "pa.Table") -> tuple["pa.Table", list[str]]:
    """Return indices in columns that fit 80 characters, and their notes below, each once."""
    import pyarrow as pa

    names: dict[str, str] = {
        "slide_id": "slide",
        "patient_id": "patient",
        "marker": "marker",
        "n_slides": "slides",
        "n_called": "cells",
        "index_percent": "index %",
        "density_per_mm2": "cells/mm²",
    }
    rows = table.to_pylist()
    distinct = dict.fromkeys(row["notes"] for row in rows if row["notes"])
    notes = {note: number for number, note in enumerate(distinct, start=1)}
    columns: dict[str, Any] = {}
    for name, short in names.items():
        if name in table.column_names:
            columns[short] = table[name]
        if name == "index_percent":
            columns["95 % interval"] = pa.array([_interval(row) for row in rows], pa.string())
    columns["note"] = pa.array([notes.get(row["notes"]) for row in rows], pa.int64())
    return pa.table(columns), [f"note {number}: {note}" for note, number in notes.items()]


def _interval(row: dict[str, Any]) -> str | None:
    if row["ci_lower_percent"] is None:
        return None
    return f"{row['ci_lower_percent']:.2f}–{row['ci_upper_percent']:.2f}"
