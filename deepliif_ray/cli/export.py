"""Commands that write results for other tools."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.annotations.origin import Origin
from deepliif_ray.cli.common import CutoffsOption, RegionOption, WithoutCorrectionsOption, app
from deepliif_ray.cli.journeys import Group
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import ProgressLine, errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepliif_ray.exports.cells import Calls, Exported

SlideOption = Annotated[
    str | None, typer.Option(help="The slide, by its id; needed where the results have several.")
]
StrengthOption = Annotated[
    bool,
    typer.Option(
        "--strength", help="Classes Negative, 1+, 2+ and 3+ by the stain of DAB; else by the model."
    ),
]
OriginOption = Annotated[
    Origin | None,
    typer.Option(
        help="Where coordinates begin: at the scanned area, as in QuPath (the default for slides that "
        "OpenSlide reads), or at the slide's corner."
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]

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


@export_app.command()
def qupath(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="The file to write: .geojson, or .geojson.gz.")],
    slide: SlideOption = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    strength: StrengthOption = False,
    points: Annotated[bool, typer.Option("--points", help="Centroids and no outlines: far smaller.")] = False,
    shard: Annotated[
        int | None, typer.Option(min=1, help="Several files, one for each square of so many pixels.")
    ] = None,
    origin: OriginOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the counted cells of a slide as GeoJSON that QuPath opens, with classes and measurements.

    In QuPath, open the slide and drag the file onto it. With --strength it shows its H-score.
    """
    from deepliif_ray.exports.qupath import export_qupath

    calls = calls_of(cutoffs, region, without_corrections)
    write(
        export_qupath,
        results,
        output,
        calls,
        slide=slide,
        strength=strength,
        points=points,
        shard_px=shard,
        origin=origin,
        overwrite=overwrite,
    )


@export_app.command()
def qupath_tsv(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="The file to write: .tsv or .txt, also with .gz.")],
    summary: Annotated[
        bool, typer.Option("--summary", help="A row a slide, of all slides unless one is named.")
    ] = False,
    slide: SlideOption = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    strength: StrengthOption = False,
    origin: OriginOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a table with QuPath's names of columns: a row a cell of a slide, or a row a slide."""
    from deepliif_ray.exports.measurements import export_measurements, export_summary

    calls = calls_of(cutoffs, region, without_corrections)
    if summary:
        count = export_summary(
            results, output, slide=slide, calls=calls, strength=strength, overwrite=overwrite
        )
        errors.print(f"{output}: {count:,} slides", markup=False)
        return
    write(
        export_measurements,
        results,
        output,
        calls,
        slide=slide,
        strength=strength,
        origin=origin,
        overwrite=overwrite,
    )


@export_app.command()
def geoparquet(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="The file to write: .parquet.")],
    slide: SlideOption = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the counted cells of a slide as GeoParquet 1.1, for GeoPandas, DuckDB, QGIS and others.

    Coordinates are pixels of level 0 from the slide's corner. Cells that lie together are together in the
    file, so that a rectangle is read without the rest.
    """
    from deepliif_ray.exports.geoparquet import export_geoparquet

    calls = calls_of(cutoffs, region, without_corrections)
    write(export_geoparquet, results, output, calls, slide=slide, overwrite=overwrite)


def calls_of(cutoffs: str | None, region: str | None, without_corrections: bool) -> "Calls":
    """Return which cells count and how they are called, as the options of a command say."""
    from deepliif_ray.exports.cells import Calls

    return Calls(cutoffs, region, not without_corrections)


def write(
    export: "Callable[..., Exported]", results: str, output: Path, calls: "Calls", **options: object
) -> None:
    """Write cells with one of the exports, and say how far it is and what was written.

    Parameters
    ----------
    export : callable
    results : str
    output : Path
    calls : Calls
    **options
        Of the export.
    """
    with ProgressLine(_line) as progress:
        done = export(results, output, calls=calls, watch=progress, **options)
    _tell(done)


def _line(done: "Exported") -> str:
    """Return what to say while an export goes on."""
    return f"slide {done.slide_id}: {done.n_cells:,} cells"


def _tell(done: "Exported") -> None:
    """Say what was written."""
    first, *others = done.files
    size = sum(_bytes(Path(file)) for file in done.files) / 1e6
    said = f"{first}{f' and {len(others):,} more' if others else ''}: {done.n_cells:,} cells, {size:.1f} MB"
    if done.origin != (0, 0):
        x, y = done.origin
        said += f"; coordinates begin at the scanned area, {x:,}, {y:,} px from the slide's corner"
    errors.print(said, markup=False)


def _bytes(path: Path) -> int:
    """Return the size of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
