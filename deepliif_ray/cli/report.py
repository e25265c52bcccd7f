"""The command that writes reports."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.cli.common import CutoffsOption, RegionOption, WithoutCorrectionsOption, app
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import ProgressLine, errors, visible

if TYPE_CHECKING:
    from deepliif_ray.report.choice import Choice


@app.command()
def report(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="The file to write: .html.")],
    slide: Annotated[str | None, typer.Option(help="A report of this slide, with pictures.")] = None,
    marker: Annotated[str | None, typer.Option(help="One marker only; aliases such as MIB-1 work.")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="A column of the manifest that groups slides for the drift of stain; by default site, or "
            "the day of scoring."
        ),
    ] = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    pictures: Annotated[int, typer.Option(min=0, help="Pictures of slides, at most.")] = 6,
    without_slides: Annotated[
        bool, typer.Option("--without-slides", help="Pictures on white; no slide is read.")
    ] = False,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Of what runs run on: what they cost.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a report of a cohort, or of a slide: one HTML file that needs no network.

    Indices and how they spread, all patients and markers, agreement, quality and failures, stain by site,
    what the numbers were made with. It names what it used; what is unknown is shown as unknown.
    """
    from deepliif_ray.exports.cells import Calls
    from deepliif_ray.report.choice import Choice

    choice = Choice(
        Calls(cutoffs, region, not without_corrections), marker, by, pictures, without_slides, price_per_hour
    )
    if slide is not None:
        for name, value in (("--marker", marker), ("--by", by), ("--price-per-hour", price_per_hour)):
            if value is not None:
                raise typer.BadParameter(f"{name} is about cohorts; leave it out with --slide")
        _report_slide(results, slide, output, choice, overwrite)
        return
    from deepliif_ray.report.cohort import write_report

    with ProgressLine(lambda drawn: f"{drawn.what} ({drawn.done + 1} of {drawn.of})") as progress:
        done = write_report(results, output, choice=choice, overwrite=overwrite, watch=progress)
    _warn(done.remarks)
    said = f"{done.n_patients:,} patients, {done.n_slides:,} slides, {done.n_pictures} pictures"
    errors.print(visible(f"{done.file}: {said}, {done.n_bytes / 1e6:.1f} MB"), markup=False)


def _report_slide(results: str, slide: str, output: Path, choice: "Choice", overwrite: bool) -> None:
    from deepliif_ray.report.slide import write_slide_report

    with ProgressLine(lambda drawn: f"{drawn.what} ({drawn.done + 1} of {drawn.of})") as progress:
        done = write_slide_report(results, slide, output, choice=choice, overwrite=overwrite, watch=progress)
    _warn(done.remarks)
    said = f"slide {slide}, {done.n_pictures} pictures, {done.n_bytes / 1e6:.1f} MB"
    errors.print(visible(f"{done.file}: {said}"), markup=False)


def _warn(remarks: tuple[str, ...]) -> None:
    for remark in remarks:
        errors.print(f"warning: {visible(remark)}", markup=False)
