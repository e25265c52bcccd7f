"""Commands that write results for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from deepliif_ray.cli.common import app
from deepliif_ray.cli.journeys import Group
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import errors

export_app = typer.Typer(cls=Group, help="Write results for other tools.", no_args_is_help=True)
app.add_typer(export_app, name="export")


@export_app.callback()
def _export() -> None:
    """Write results for other tools."""


@export_app.command("duckdb")
def duckdb_(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="The DuckDB file to write.")],
    relative: Annotated[
        bool,
        typer.Option("--relative", help="Name cells relative to the file's folder, to move both together."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")] = False,
) -> None:
    """Write a DuckDB file that DBeaver, the DuckDB command line or a notebook opens without this package.

    It is a snapshot with all views and macros. Cells stay in their Parquet files, which it names; with
    --relative, start DuckDB in the file's folder. For s3:// and gs://, load DuckDB's httpfs there.
    """
    from deepliif_ray.query.export import export_duckdb, needed

    written = export_duckdb(results, output, relative=relative, overwrite=overwrite)
    size = written.stat().st_size / 1e6
    errors.print(f"{written}: {size:.1f} MB, for DuckDB {needed()} and later", markup=False)
