"""The command that takes patients and slides out of results."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.cli.cohort import some
from deepliif_ray.cli.common import OK, SOME_FAILED, FormatOption, OutputOption, app, stoppable
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import chosen_format, errors, show, visible

if TYPE_CHECKING:
    from deepliif_ray.tables.forget import ForgetProgress

_MOST_LEFT = 20


@app.command()
def forget(
    results: ResultsArgument,
    patient: Annotated[
        list[str] | None, typer.Option(help="All slides of the patient of this patient_id; repeatable.")
    ] = None,
    slide: Annotated[list[str] | None, typer.Option(help="The slide of this slide_id; repeatable.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing, only show what would go.")
    ] = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Remove all that results hold of a patient or slide; it cannot be undone, and no run may be at work.

    Exit code 3 if something is left that a person has to look at.
    """
    import pyarrow as pa

    from deepliif_ray.engine.run.forget import forget as run

    def line(progress: "ForgetProgress") -> str:
        return f"{progress.doing}: {progress.done:,}/{progress.objects:,} objects"

    chosen_format(form, output)
    with stoppable(line) as progress:
        summary = run(results, patients=patient or (), slides=slide or (), dry_run=dry_run, watch=progress)
    kinds = {"kind": pa.string(), "removed": pa.int64(), "rewritten": pa.int64(), "rows": pa.int64()}
    show(pa.Table.from_pylist([asdict(kind) for kind in summary.erased], pa.schema(kinds)), form, output)
    count = len(summary.slides)
    would = "would be forgotten" if dry_run else "forgotten"
    named = f": {some(map(repr, summary.slides))}" if count else ""
    errors.print(f"{count} slide{'s' * (count != 1)} {would}{named}", markup=False)
    for name, owner in summary.kept:
        errors.print(
            f"slide {visible(repr(name))} stays: it is patient {visible(repr(owner))}'s now; what named the "
            "earlier patient goes",
            markup=False,
        )
    for damage in summary.left[:_MOST_LEFT]:
        errors.print(f"left: {visible(damage.object)}: {visible(damage.problem)}", markup=False)
    if len(summary.left) > _MOST_LEFT:
        errors.print(f"… and {len(summary.left) - _MOST_LEFT} more")
    errors.print(
        "not touched: the manifest (take them out of it, or the next run scores them again), the slides' "
        "files, backups and older versions that the store keeps, logs, caches of other machines, and what "
        "was written elsewhere from these results"
    )
    raise typer.Exit(OK if summary.is_complete else SOME_FAILED)
