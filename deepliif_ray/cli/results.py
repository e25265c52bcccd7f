"""Commands that look after results."""

from typing import Annotated

import typer

from deepliif_ray.cli.common import app, stoppable
from deepliif_ray.console import errors


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
    if summary.waiting:
        errors.print(
            f"{summary.waiting:,} that are not needed any more are kept for readers; run this again after "
            f"{keep_minutes:g} minutes to remove them"
        )
