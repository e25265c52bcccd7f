"""The command that shows how dark a cohort's stain is, and makes cut-offs of its own."""

import getpass
from typing import Annotated

import typer

from deepliif_ray.cli.common import FormatOption, OutputOption, app
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import chosen_format, errors, show


@app.command()
def cutoffs(
    results: ResultsArgument,
    marker: Annotated[str | None, typer.Option(help="One marker only; aliases such as p53 work.")] = None,
    by: Annotated[
        str | None, typer.Option(help="A column of the manifest, such as site: cut-offs for each value.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option("--control", help="A scored slide on which the marker is absent; may be repeated."),
    ] = None,
    quantiles: Annotated[
        str, typer.Option(help="Without controls: quantiles of all counted cells for 1+, 2+ and 3+.")
    ] = "0.5,0.75,0.9",
    save: Annotated[
        str | None, typer.Option(help="Keep the cut-offs with the results, by this name.")
    ] = None,
    author: Annotated[str | None, typer.Option(help="Who makes them; by default the user's name.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a set of that name.")] = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show the distribution of DAB over nuclei by marker, and propose cut-offs for 1+, 2+ and 3+.

    QuPath's 0.2, 0.4 and 0.6, which hold where nothing is said, belong to its own stain vectors and
    background. Cut-offs that are saved are used with `cutoffs := 'name'`, and every answer names them.
    """
    from deepliif_ray.cutoffs import propose_cutoffs
    from deepliif_ray.scoring.markers import registry_with
    from deepliif_ray.tables.cohort import read_markers

    chosen_format(form, output)
    try:
        low, middle, high = (float(part) for part in quantiles.split(","))
    except ValueError as error:
        raise typer.BadParameter("--quantiles are three numbers such as 0.5,0.75,0.9") from error
    if marker is not None:
        marker = registry_with(read_markers(results), results).read(marker)[0].name
    proposal = propose_cutoffs(
        results,
        marker=marker,
        by=by,
        controls=control or (),
        quantiles=(low, middle, high),
        save=save,
        author=author or getpass.getuser(),
        overwrite=overwrite,
    )
    show(proposal.table, form, output)
    errors.print(f"weak, moderate, strong: {proposal.note}", markup=False)
    if proposal.url is not None:
        errors.print(
            f"kept as {proposal.url}; use it with cutoffs := '{save}', for instance\n"
            f"  deepliif-ray sql {results} \"FROM patient_h_scores(cutoffs := '{save}')\"",
            markup=False,
        )
