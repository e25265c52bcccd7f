"""Commands that show results, ask them, and look after them."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.cli.common import ERROR, OK, SOME_FAILED, FormatOption, OutputOption, app, stoppable
from deepliif_ray.console import (
    Format,
    LiveText,
    chosen_format,
    errors,
    show,
    time_left,
    where_time_went,
)
from deepliif_ray.errors import QueryError
from deepliif_ray.plain import rows

if TYPE_CHECKING:
    from deepliif_ray.query import Session
    from deepliif_ray.watching import Watcher


ResultsArgument = Annotated[str, typer.Argument(help="URL of the results.")]


@app.command()
def status(
    results: ResultsArgument,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run that goes on to its end.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks with --watch.")] = 2.0,
) -> None:
    """Show the newest run and where its time went, the slides scored, their quality, and the failures."""
    from deepliif_ray.query import ask_all
    from deepliif_ray.watching import Watcher

    watcher = Watcher(results)
    if watch:
        _follow(watcher, interval)
        return
    queries = {
        "run": "SELECT run_id, status, engine, model_uri, started_at, finished_at, n_slides, n_scored, "
        "n_skipped, n_failed, n_cells, timings FROM runs "
        "ORDER BY coalesce(epoch, -1) DESC, started_at DESC LIMIT 1",
        "markers": "SELECT marker, count(*) AS slides, sum(n_tiles_inferred)::BIGINT AS tiles_inferred, "
        "sum(n_cells)::BIGINT AS cells, sum(tissue_mm2) AS tissue_mm2, "
        "count_if(len(warnings) > 0) AS with_warnings FROM slides GROUP BY ALL ORDER BY ALL",
        "quality": "SELECT slide_id, flags, focus, tissue_percent, pen_percent, hematoxylin_od, dab_od, "
        "stain_residual, background_grey, background_cast, skipped_percent, bad_percent FROM slide_quality "
        "WHERE len(flags) > 0 ORDER BY slide_id",
        "leftovers": "SELECT slide_id, patient_id, marker, renamed_to, manifest_uri FROM leftovers "
        "ORDER BY 1",
        "failures": "SELECT slide_id, stage, reason, message FROM failures ORDER BY ALL",
        "damaged": "FROM damaged ORDER BY object, slide_id",
    }
    tables = ask_all(results, queries)
    live = watcher.look()
    if as_json:
        answer: dict[str, object] = {name: rows(table) for name, table in tables.items()}
        answer["live"] = None if live is None else asdict(live)
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=1))
        return
    for name, table in tables.items():
        if not table.num_rows:
            continue
        if name == "quality":
            typer.echo(f"quality control flags {table.num_rows} slides:")
        if name == "damaged":
            typer.echo("damaged and passed over; `check --repair` and scoring again mend it:")
        if name == "leftovers":
            typer.echo(
                f"{table.num_rows} slides are not in the newest manifest and still count (score --prune):"
            )
        show(table.drop_columns("timings") if name == "run" else table, Format.TABLE)
        timings = table["timings"].to_pylist()[0] if name == "run" else None
        if timings is not None:
            typer.echo(_spent(timings))
        typer.echo()
    if live is not None:
        typer.echo("\n".join(["going on now:", *live.lines()]))


def _spent(timings: dict[str, float]) -> str:
    return where_time_went({name.removesuffix("_s"): value for name, value in timings.items()}) or ""


def _follow(watcher: "Watcher", interval: float) -> None:
    """Show a run until it ends; the exit code is 0 if it came to its end."""
    sight = None
    with LiveText() as text:
        for sight in watcher.follow(interval):
            text.show(sight.lines(steady=not text.is_live))
    if sight is None:
        typer.echo("no run is going on here")
        return
    record = watcher.ended(sight.run_id)
    if record is None or record["status"] == "running":
        typer.echo(
            f"run {sight.run_id} gave no sign of life for {time_left(sight.silent_s)} and its end is not "
            "recorded; start it again to go on"
        )
        raise typer.Exit(ERROR)
    counts = ", ".join(f"{record[f'n_{name}']} {name}" for name in ("scored", "skipped", "failed"))
    typer.echo(f"run {sight.run_id} {record['status']}: {counts}; {record['n_cells']:,} cells")
    if record["timings"] is not None:
        typer.echo(_spent(record["timings"]))
    if record["status"] != "finished":
        raise typer.Exit(ERROR)


@app.command()
def sql(
    results: ResultsArgument,
    query: Annotated[
        str | None,
        typer.Argument(
            help="SQL over cells, slides, failures, called_cells, patient_indices, …; not given: what is "
            "typed at a terminal, else standard input.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Statements to answer in order, separated by semicolons.")
    ] = None,
    describe: Annotated[
        str | None, typer.Option("--describe", metavar="VIEW", help="Explain the columns of a view.")
    ] = None,
    form: FormatOption = None,
    output: OutputOption = None,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--sandbox",
            help="For untrusted SQL: a process of its own, no other files, network or extensions.",
        ),
    ] = False,
    sandbox_seconds: Annotated[
        float, typer.Option(min=1, help="Time that a sandboxed query may take.")
    ] = 60.0,
    sandbox_gb: Annotated[float, typer.Option(min=0.1, help="Memory that a sandboxed query may take.")] = 4.0,
) -> None:
    """Ask SQL of the committed results: one query, a file of them, or one after another at a terminal."""
    from deepliif_ray.query import Limits, Session, ask
    from deepliif_ray.query.literals import quoted

    if sum(given is not None for given in (query, file, describe)) > 1:
        raise typer.BadParameter("give one of QUERY, --file and --describe")
    form = chosen_format(form, output)
    limits = Limits(sandbox_seconds, int(sandbox_gb * 1e9)) if sandbox else None
    if describe is not None:
        show(ask(results, f"SELECT * EXCLUDE (view) FROM described({quoted(describe)})"), form, output)
    elif query is not None:
        show(ask(results, query, sandbox=limits or False), form, output)
    elif file is None and sys.stdin.isatty() and sys.stdout.isatty():
        if output is not None:
            raise typer.BadParameter("--output is for a QUERY or --file; at the prompt there is .output FILE")
        with Session(results, limits) as session:
            from deepliif_ray.cli.shell import run_shell

            run_shell(results, session, form)
    else:
        with Session(results, limits) as session:
            _answer_all(session, _read(file), form, output)


def _read(file: Path | None) -> str:
    """Return the statements of a file, or of standard input."""
    named = "standard input" if file is None else str(file)
    try:
        content = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise QueryError(f"{named}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise QueryError(f"{named}: is not text in UTF-8 ({error.reason} at byte {error.start})") from error


def _answer_all(session: "Session", text: str, form: Format, output: Path | None) -> None:
    """Answer statements in order; all of them are looked at before the first is answered."""
    queries = session.statements(text)
    if not queries:
        raise QueryError("there is no statement to answer; write SQL such as FROM patient_indices;")
    if len(queries) > 1 and (output is not None or form is Format.PARQUET):
        raise QueryError(
            f"{len(queries)} statements have {len(queries)} answers, and one file of this format holds one; "
            "write each to a file of its own"
        )
    for number, query in enumerate(queries):
        if number:
            typer.echo()
        show(session.answer(query), form, output)
        sys.stdout.flush()


@app.command()
def optimize(
    results: ResultsArgument,
    keep_minutes: Annotated[
        float,
        typer.Option(
            min=0,
            help="How long replaced cells stay for readers that opened the results before; 0 only when "
            "nobody else reads or writes them.",
        ),
    ] = 60.0,
    drop_superseded: Annotated[
        bool, typer.Option("--drop-superseded", help="Forget older generations of slides scored again.")
    ] = False,
) -> None:
    """Join the many small objects of results into few; safe beside readers and running jobs."""
    from deepliif_ray.tables.optimize import OptimizeProgress
    from deepliif_ray.tables.optimize import optimize as join

    def line(progress: OptimizeProgress) -> str:
        return f"{progress.done:,}/{progress.objects:,} objects of cells joined"

    with stoppable(line) as progress:
        summary = join(results, keep_minutes=keep_minutes, drop_superseded=drop_superseded, watch=progress)
    errors.print(
        f"{summary.objects_before:,} objects are now {summary.objects_after:,}; {summary.removed:,} removed, "
        f"in {summary.seconds:.1f} s"
    )
    for damage in summary.damaged:
        errors.print(f"damaged, left as it is: {damage.object}: {damage.problem}", markup=False)
    if summary.waiting:
        errors.print(
            f"{summary.waiting:,} that are not needed any more are kept for readers; run this again after "
            f"{keep_minutes:g} minutes to remove them"
        )


@app.command()
def check(
    results: ResultsArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move what is damaged out of the way; no run may be at work.")
    ] = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Verify every object of results: there, whole, as its record says. Exit code 3 if any is wrong."""
    import pyarrow as pa

    from deepliif_ray.engine.run.check import check as run
    from deepliif_ray.tables.check import CheckReport, Finding

    def line(report: CheckReport) -> str:
        return f"{sum(report.checked.values()):,} objects checked, {len(report.findings)} findings"

    chosen_format(form, output)
    with stoppable(line) as progress:
        report = run(results, repair=repair, watch=progress)
    if report.findings or output is not None or form is not None:
        schema = pa.schema([(name, pa.string()) for name in Finding.__dataclass_fields__])
        schema = schema.set(schema.get_field_index("is_wrong"), pa.field("is_wrong", pa.bool_()))
        show(pa.Table.from_pylist([asdict(finding) for finding in report.findings], schema), form, output)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in report.checked.items())
    wrong = sum(finding.is_wrong for finding in report.findings)
    errors.print(f"checked {counts or 'nothing'}: {wrong} wrong, {len(report.findings) - wrong} left over")
    raise typer.Exit(OK if report.is_sound else SOME_FAILED)
