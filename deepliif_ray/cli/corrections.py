"""Commands about corrections of single cells."""

from typing import Annotated

import typer

from deepliif_ray.cli.common import OK, SOME_FAILED, FormatOption, OutputOption, app
from deepliif_ray.cli.journeys import Group
from deepliif_ray.cli.regions import (
    AuthorOption,
    ImportArgument,
    OriginOption,
    ResultsArgument,
    SkipOption,
    SlideOption,
    tell,
    tell_damaged,
)
from deepliif_ray.console import chosen_format, errors, show

corrections_app = typer.Typer(
    cls=Group, help="What people say of single cells: positive, negative, not a cell.", no_args_is_help=True
)
app.add_typer(corrections_app, name="corrections")


@corrections_app.command("import")
def import_(
    results: ResultsArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…", help="GeoJSON, or a table (CSV, JSON Lines, Parquet) of slide_id, x, y, call."
        ),
    ],
    slide: SlideOption = None,
    author: AuthorOption = None,
    reach_um: Annotated[
        float, typer.Option(help="How far a cell's centroid may be from a position in no cell, µm.")
    ] = 5.0,
    origin: OriginOption = None,
    skip_refused: SkipOption = False,
) -> None:
    """Bring corrections into results; the newest of a cell counts. Exit code 3 if some match no cell."""
    from deepliif_ray.annotations.corrections import import_corrections

    report = import_corrections(
        results,
        files,
        slide=slide,
        author=author,
        reach_um=reach_um,
        origin=origin,
        skip_refused=skip_refused,
    )
    if report.other_columns:
        errors.print(f"columns that mean nothing here: {', '.join(report.other_columns)}", markup=False)
    tell(report.refused, "left out")
    tell(report.unmatched, "matches no cell")
    calls = ", ".join(f"{count:,} {call}" for call, count in sorted(report.calls.items()))
    kept = f"; {len(report.unmatched):,} match no cell and are kept" if report.unmatched else ""
    errors.print(f"{calls} imported as {report.import_id}{kept}", markup=False)
    raise typer.Exit(SOME_FAILED if report.unmatched or report.refused else OK)


@corrections_app.command("list")
def list_(results: ResultsArgument, form: FormatOption = None, output: OutputOption = None) -> None:
    """Show all corrections, the cells that they match, and which count."""
    from deepliif_ray.annotations.listing import list_corrections

    chosen_format(form, output)
    table, damaged = list_corrections(results)
    tell_damaged(damaged)
    if not table.num_rows and form is None and output is None:
        errors.print("no corrections here; `deepliif-ray corrections import` brings some in")
        return
    show(table, form, output)


@corrections_app.command()
def drop(results: ResultsArgument, import_id: ImportArgument) -> None:
    """Remove an import of corrections."""
    from deepliif_ray.annotations.corrections import drop_corrections

    errors.print(f"{drop_corrections(results, import_id):,} corrections removed")
