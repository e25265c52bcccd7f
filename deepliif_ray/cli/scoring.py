"""Commands that score cohorts, and that look at what would be scored, and with what."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.cli.cohort import about_cohort, show_warnings
from deepliif_ray.cli.common import (
    ERROR,
    OK,
    SOME_FAILED,
    FormatOption,
    OutputOption,
    app,
    command_name,
    stoppable,
)
from deepliif_ray.cli.options import chosen, options_of
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import (
    Format,
    chosen_format,
    errors,
    show,
    time_left,
    visible,
    where_time_went,
)

if TYPE_CHECKING:
    from deepliif_ray.pace import Pace

_MOST_FAILURES = 20

ManifestArgument = Annotated[str, typer.Argument(help="URL of the manifest: CSV, Parquet or JSON Lines.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="A name that `models` lists, or the URL of a bundle or published folder; by default compact, "
        "the small network that ships with the package."
    ),
]
MarkersOption = Annotated[
    str | None,
    typer.Option(help="URL of a YAML file of the cohort's own markers, in the form of schemas/markers.yaml."),
]
_COMPUTED, _RUNS = "What is computed", "How it runs"


@app.command(cls=options_of(ScoreConfig=_COMPUTED, Execution=_RUNS))
def score(
    ctx: typer.Context,
    manifest: ManifestArgument,
    results: ResultsArgument,
    model: ModelOption = None,
    log_format: Annotated[
        str, typer.Option(help="human, or json: one object a line instead of all other messages.")
    ] = "human",
    log_level: Annotated[
        str | None,
        typer.Option(help="debug, info, warning or error; by default warning, or info with json."),
    ] = None,
    log_file: Annotated[
        str | None, typer.Option(help="Local file to log to; by default standard error.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Retire slides of the results that the manifest lists no more.")
    ] = False,
    markers: MarkersOption = None,
    slide: Annotated[
        list[str] | None, typer.Option(help="Only the slide of this slide_id; repeatable.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Score so many slides at most; later runs go on with the rest."),
    ] = None,
) -> None:
    """Score the slides of a manifest that are not scored yet; run it again to go on after a stop."""
    from deepliif_ray import logs
    from deepliif_ray.config import DEFAULT_MODEL, Execution, ScoreConfig
    from deepliif_ray.engine.score import score as run

    logs.start(logs.log_config(log_format, log_level), log_file)
    errors.quiet = log_format == "json" and log_file is None
    with stoppable() as progress:
        summary = run(
            manifest,
            results,
            model=model or DEFAULT_MODEL,
            config=chosen(ctx, ScoreConfig),
            execution=chosen(ctx, Execution),
            watch=progress,
            prune=prune,
            markers=markers,
            slides=slide or (),
            limit=limit,
        )
    show_warnings(summary.warnings)
    for slide_id, message in summary.failures[:_MOST_FAILURES]:
        errors.print(f"failed: {slide_id!r}: {visible(message)}", markup=False)
    if len(summary.failures) > _MOST_FAILURES:
        errors.print(f"… and {len(summary.failures) - _MOST_FAILURES} more; see `{command_name()} status`")
    for text in about_cohort(summary.refreshed, summary.retired, summary.leftovers):
        errors.print(text, markup=False)
    errors.print(
        f"{summary.scored} scored, {summary.skipped} done before, {summary.failed} failed; "
        f"{summary.cells:,} cells, {summary.tiles:,} tiles in {summary.seconds:.1f} s"
    )
    if summary.later:
        errors.print(f"{summary.later} more are left for later (--limit); run this again to go on")
    spent = where_time_went(summary.spent)
    if spent is not None:
        errors.print(spent)
    errors.print(f"next: {command_name()} index {shlex.quote(results)}", markup=False)
    raise typer.Exit(SOME_FAILED if summary.failed else OK)


@app.command(cls=options_of(ScoreConfig=_COMPUTED))
def plan(
    ctx: typer.Context,
    manifest: ManifestArgument,
    results: Annotated[
        str | None, typer.Argument(help="URL of results, to see what a run would do with them.")
    ] = None,
    model: ModelOption = None,
    markers: MarkersOption = None,
    tiles_per_second: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="Pace to estimate with; by default that of an earlier run in RESULTS with this model, or of "
            "one tile that is inferred here.",
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="What an hour of the machines costs, to estimate the cost.")
    ] = None,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show what would be scored and how long it takes: slides, tiles, problems. Nothing is written."""
    from deepliif_ray.config import DEFAULT_MODEL, ScoreConfig
    from deepliif_ray.pace import Pace, pace
    from deepliif_ray.preview import look_ahead

    config = chosen(ctx, ScoreConfig)
    chosen_format(form, output)
    found = look_ahead(manifest, config, results=results, markers=markers, model=model or DEFAULT_MODEL)
    table = found.table
    show(table, form, output)
    show_warnings(found.warnings)
    for text in about_cohort(0, (), found.leftovers):
        errors.print(text, markup=False)
    tiles = sum(table["tiles"].drop_null().to_pylist())
    failed = table.num_rows - table["problem"].null_count
    errors.print(f"{table.num_rows} slides, {tiles:,} tiles, {failed} with problems")
    tiles -= sum(table["masked"].drop_null().to_pylist())
    given = None if tiles_per_second is None else Pace(tiles_per_second, "as you say")
    if tiles:
        expected = given or pace(model or DEFAULT_MODEL, results)
        errors.print(_estimate(tiles, expected, price_per_hour), markup=False, soft_wrap=True)
    raise typer.Exit(SOME_FAILED if failed else OK)


def _estimate(tiles: int, pace: "Pace | None", price_per_hour: float | None) -> str:
    if pace is None:
        return "no estimate of the time: no run with this model is known; give --tiles-per-second"
    seconds = pace.seconds(tiles)
    text = f"{tiles:,} of the tiles show tissue: about {time_left(seconds)} "
    text += f"at {pace.tiles_per_second:.3g} tiles/s, {pace.source}"
    if price_per_hour is not None:
        text += f"; {seconds / 3600 * price_per_hour:,.2f} at {price_per_hour:g} an hour"
    return text


@app.command()
def models(form: FormatOption = None) -> None:
    """List the models that have a name; any published model folder works by its URL."""
    import pyarrow as pa

    from deepliif_ray.models import registered_models

    known = registered_models()
    show(pa.table({"model": list(known), "description": list(known.values())}), form)


@app.command()
def doctor(form: FormatOption = None) -> None:
    """Check this machine: versions, devices, bfloat16, and how fast the parts run here."""
    from deepliif_ray.doctor import examine

    report = examine()
    show(report, form)
    raise typer.Exit(OK if all(report["ok"].to_pylist()) else ERROR)


@app.command(cls=options_of(Execution=_RUNS))
def demo(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where to write the cohort and its results.")] = Path("demo"),
) -> None:
    """Write a small cohort of synthetic slides, score it, and show its indices beside the truth."""
    from deepliif_ray.config import Execution
    from deepliif_ray.demo import run_demo

    execution = chosen(ctx, Execution)
    with stoppable() as progress:
        report = run_demo(
            folder, execution=execution, watch=progress, say=errors.print, command=command_name()
        )
    show(report.table, Format.TABLE)
    for line in report.next_steps:
        typer.echo(line)
