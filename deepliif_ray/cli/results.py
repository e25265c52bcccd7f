"""Commands that look after results."""

from dataclasses import asdict
from typing import Annotated

import typer

from deepliif_ray.cli.common import OK, SOME_FAILED, FormatOption, OutputOption, app, stoppable
from deepliif_ray.console import chosen_format, errors, show


@app.command()
def optimize(
    results: Annotated[str, typer.Argument(help="URL of the results.")],
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
    results: Annotated[str, typer.Argument(help="URL of the results.")],
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
