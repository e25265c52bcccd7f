"""The command that builds and extends manifests."""

from typing import Annotated

import typer

from deepliif_ray.cli.common import OK, SOME_FAILED, FormatOption, app
from deepliif_ray.cli.journeys import Group
from deepliif_ray.console import errors, show

manifest_app = typer.Typer(cls=Group, help="Build and extend manifests.", no_args_is_help=True)
app.add_typer(manifest_app, name="manifest")


@manifest_app.command()
def scan(
    source: Annotated[str, typer.Argument(help="URL of the folder or bucket with the slides.")],
    pattern: Annotated[
        list[str],
        typer.Option(help="Form of their paths, such as '{patient_id}/{marker}/{slide_id}.svs'; repeatable."),
    ],
    output: Annotated[str, typer.Option(help="URL of the manifest to write: CSV, JSON Lines, Parquet.")],
    extend: Annotated[
        str | None, typer.Option(help="URL of a manifest whose rows stay as they are; may be the output.")
    ] = None,
    join: Annotated[
        str | None, typer.Option(help="URL of a table with further columns, by slide, to join.")
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="Its column with the slide's file name, path or URL.")
    ] = None,
    marker: Annotated[str | None, typer.Option(help="Marker of all new slides.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per px of all new slides.")] = None,
    markers: Annotated[
        str | None, typer.Option(help="URL of a YAML file of the cohort's own markers.")
    ] = None,
    form: FormatOption = None,
) -> None:
    """Write a manifest of the slides below a folder; show those that have no place in it, and why."""
    from deepliif_ray.jobs.scan import scan as run

    given = {"marker": marker, "mpp": None if mpp is None else f"{mpp:g}"}
    constants = {name: text for name, text in given.items() if text is not None}
    report = run(
        source, pattern, output, extend=extend, join=join, on=on, constants=constants, markers=markers
    )
    if report.unplaced:
        show(report.table, form)
    errors.print(
        f"{report.added} slides added, {report.known} known before, {len(report.unplaced)} without a place; "
        f"{report.rows} rows in {output}",
        markup=False,
    )
    if report.other_files:
        errors.print(f"{report.other_files} other files were passed over")
    if report.hidden_files:
        errors.print(f"{report.hidden_files} hidden or system files were passed over")
    if report.lab_rows_unused:
        errors.print(f"{report.lab_rows_unused} rows of {join} name no slide here", markup=False)
    raise typer.Exit(SOME_FAILED if report.unplaced else OK)
