"""Commands about regions that people drew on slides."""

from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.annotations.origin import Origin
from deepliif_ray.cli.common import OK, SOME_FAILED, FormatOption, OutputOption, app
from deepliif_ray.cli.journeys import Group
from deepliif_ray.console import chosen_format, errors, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepliif_ray.tables.records import Damage

_MOST = 20
regions_app = typer.Typer(cls=Group, help="Regions drawn on slides, from QuPath.", no_args_is_help=True)
app.add_typer(regions_app, name="regions")

ResultsArgument = Annotated[str, typer.Argument(help="URL of the results.")]
ImportArgument = Annotated[str, typer.Argument(help="The import, as `list` names it.")]
SlideOption = Annotated[
    str | None, typer.Option(help="The slide that the files are of; else their names or features say.")
]
AuthorOption = Annotated[str | None, typer.Option(help="Who drew them; by default your user name.")]
OriginOption = Annotated[
    Origin | None,
    typer.Option(
        help="Where coordinates begin: at the scanned area, as in QuPath (the default for slides that "
        "OpenSlide reads), or at the slide's corner."
    ),
]
SkipOption = Annotated[
    bool, typer.Option("--skip-refused", help="Leave out, and list, what cannot be used. Exit code 3.")
]


def tell(texts: "Sequence[str]", said: str) -> None:
    """Show texts, the first of many, each after what is said of it."""
    for text in texts[:_MOST]:
        errors.print(f"{said}: {text}", markup=False)
    if len(texts) > _MOST:
        errors.print(f"… and {len(texts) - _MOST:,} more {said}")


def tell_damaged(damaged: "Sequence[Damage]") -> None:
    """Show objects that were passed over."""
    lines = [f"{d.object}: {d.problem}" + (f" (slide {d.slide_id!r})" if d.slide_id else "") for d in damaged]
    tell(lines, "passed over")


@regions_app.command("import")
def import_(
    results: ResultsArgument,
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="GeoJSON files or URLs; also .gz.")],
    slide: SlideOption = None,
    author: AuthorOption = None,
    origin: OriginOption = None,
    no_tissue: Annotated[
        bool, typer.Option("--no-tissue", help="Don't read the slides; the tissue in regions stays unknown.")
    ] = False,
    skip_refused: SkipOption = False,
) -> None:
    """Bring regions into results; they replace those that their slides had. All or nothing."""
    from deepliif_ray.annotations.regions import import_regions

    report = import_regions(
        results,
        files,
        slide=slide,
        author=author,
        origin=origin,
        read_slides=not no_tissue,
        skip_refused=skip_refused,
    )
    tell(report.refused, "left out")
    tell(report.repaired, "outline repaired")
    tell([f"{name}: {why}" for name, why in report.without_tissue.items()], "tissue not measured")
    for kind, count in report.passed_over.items():
        errors.print(f"passed over, as no region: {count:,} × {kind}", markup=False)
    tell(report.replaced, "replaces the regions of")
    errors.print(
        f"{sum(report.slides.values()):,} regions of {len(report.slides):,} slides imported as "
        f"{report.import_id}",
        markup=False,
    )
    raise typer.Exit(SOME_FAILED if report.refused else OK)


@regions_app.command("list")
def list_(
    results: ResultsArgument,
    history: Annotated[
        bool, typer.Option("--all", help="Also those that do not count: replaced, or without a slide.")
    ] = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show the regions of each slide and class: area, tissue, cells, who drew them and when."""
    from deepliif_ray.annotations.listing import list_regions

    chosen_format(form, output)
    table, damaged = list_regions(results, history=history)
    tell_damaged(damaged)
    if not table.num_rows and form is None and output is None:
        errors.print("no regions here; `deepliif-ray regions import` brings some in")
        return
    show(table, form, output)


@regions_app.command()
def drop(results: ResultsArgument, import_id: ImportArgument) -> None:
    """Remove an import; the one before it counts again."""
    from deepliif_ray.annotations.regions import drop_regions

    errors.print(f"{drop_regions(results, import_id):,} regions removed")


@regions_app.command()
def export(
    results: ResultsArgument,
    slide: Annotated[str, typer.Argument(help="The slide, by its id.")],
    file: Annotated[str, typer.Argument(help="File to write: .geojson or .json, also .gz.")],
    origin: Annotated[
        Origin | None,
        typer.Option(help="Where coordinates begin; by default as in the file that was imported."),
    ] = None,
) -> None:
    """Write the regions of a slide as GeoJSON that QuPath opens."""
    from deepliif_ray.annotations.export import export_regions

    count = export_regions(results, slide, file, origin=origin)
    errors.print(f"{count:,} regions written to {file}", markup=False)


@regions_app.command()
def refresh(
    results: ResultsArgument,
    no_tissue: Annotated[
        bool, typer.Option("--no-tissue", help="Don't read slides; tissue that is unknown stays unknown.")
    ] = False,
) -> None:
    """Measure regions and corrections of slides that were scored again anew, and keep that."""
    from deepliif_ray.annotations.refresh import refresh as run

    report = run(results, read_slides=not no_tissue)
    tell_damaged(report.left)
    errors.print(
        f"regions of {len(report.regions):,} slides and corrections of {len(report.corrections):,} measured "
        f"anew; {report.removed:,} objects removed that nothing needs"
    )
    raise typer.Exit(SOME_FAILED if report.left else OK)
