"""The command that draws pictures of scored slides."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deepliif_ray.annotations.origin import Origin
from deepliif_ray.cli.common import CutoffsOption, RegionOption, WithoutCorrectionsOption, app, area_of
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import errors, visible


class Heat(StrEnum):
    """What a map shows."""

    INDEX = "index"
    DENSITY = "density"


@app.command()
def picture(
    results: ResultsArgument,
    slide: Annotated[str, typer.Argument(help="The slide, by its id.")],
    output: Annotated[Path, typer.Option(help="The file to write: .png.")],
    at: Annotated[
        str | None,
        typer.Option(metavar="X,Y,WIDTH,HEIGHT", help="The area, in pixels of level 0; by default all."),
    ] = None,
    origin: Annotated[
        Origin | None,
        typer.Option(
            help="Where X and Y begin: at the slide's corner, or at the scanned area, as in QuPath."
        ),
    ] = None,
    width: Annotated[int, typer.Option(help="Of the picture, in pixels.")] = 1600,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    strength: Annotated[
        bool, typer.Option("--strength", help="Colours by 0, 1+, 2+ and 3+, by the stain of DAB.")
    ] = False,
    heat: Annotated[Heat | None, typer.Option(help="A map in squares, and no outlines.")] = None,
    square_um: Annotated[
        float | None, typer.Option(help="Side of the squares; by default 100, or as many as can be seen.")
    ] = None,
    least_cells: Annotated[int, typer.Option(min=1, help="Cells of a square whose index is shown.")] = 20,
    hot_spots: Annotated[int, typer.Option(min=0, help="How many hot spots to draw.")] = 0,
    hot_spot_cells: Annotated[int, typer.Option(min=1, help="Cells of a hot spot.")] = 500,
    without_slide: Annotated[
        bool, typer.Option("--without-slide", help="On white; no slide is read.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Draw the called cells of a slide over its tissue: positive red, negative blue.

    Of an area where cells would be too small to be seen, it is a map of the index. If the slide is not to be
    had, or is not the one that was scored, cells are on white, and the picture says so.
    """
    from deepliif_ray.exports.cells import Calls
    from deepliif_ray.pictures.picture import draw_picture

    done = draw_picture(
        results,
        slide,
        output,
        at=None if at is None else area_of("--at", at),
        width=width,
        origin=origin,
        calls=Calls(cutoffs, region, not without_corrections),
        strength=strength,
        heat=None if heat is None else "index" if heat is Heat.INDEX else "density",
        square_um=square_um,
        least_cells=least_cells,
        hot_spots=hot_spots,
        hot_spot_cells=hot_spot_cells,
        without_slide=without_slide,
        overwrite=overwrite,
    )
    for warning in done.warnings:
        errors.print(f"warning: slide {visible(repr(slide))}: {visible(warning)}", markup=False)
    what = {"outlines": "outlines", "index": "map of the index", "density": "map of the density"}[done.shows]
    errors.print(
        visible(f"{done.file}: {what}, {done.n_called:,} cells, {done.n_positive:,} positive"), markup=False
    )
