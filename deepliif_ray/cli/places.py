"""The commands that show where on their slides positive cells lie."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.cli.common import (
    CutoffsOption,
    FormatOption,
    OutputOption,
    RegionOption,
    WithoutCorrectionsOption,
    app,
)
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import Format, chosen_format, errors, show, visible

if TYPE_CHECKING:
    import pyarrow as pa

    from deepliif_ray.places import Found

MarkerOption = Annotated[str, typer.Option(help="The marker; aliases such as MIB-1 work.")]
SlideOption = Annotated[
    list[str] | None, typer.Option(help="One slide only; give it again for more. By default all.")
]


class By(StrEnum):
    """What makes a circle hot."""

    SHARE = "share"
    DENSITY = "density"


@app.command(name="hot-spots")
def hot_spots(
    results: ResultsArgument,
    marker: MarkerOption,
    slide: SlideOption = None,
    cells: Annotated[
        int | None, typer.Option(help="Cells of a circle. By default 500 if no area is given.")
    ] = None,
    area_mm2: Annotated[float | None, typer.Option(help="Area of a circle, in place of --cells.")] = None,
    by: Annotated[
        By, typer.Option(help="Highest share of positive cells, or most of them by area.")
    ] = By.SHARE,
    count: Annotated[int, typer.Option(help="How many circles a slide, which do not overlap.")] = 1,
    min_cells: Annotated[
        int | None,
        typer.Option(help="With --area-mm2: fewest cells of a circle; 500 by share, 1 by density."),
    ] = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show the hot spots of slides: the circles with the highest share, or density, of positive cells.

    Every circle around a counted cell is compared, so the answer is exact. It has no interval: the best of
    many circles lies above the index even where tissue is the same all over.

    The table on the screen is short; --format csv or --output have every column.
    """
    from deepliif_ray.places import find_hot_spots
    from deepliif_ray.query import scored

    form = chosen_format(form, output)
    found = find_hot_spots(
        results,
        marker=marker,
        slides=slide or None,
        cells=500 if cells is None and area_mm2 is None else cells,
        area_mm2=area_mm2,
        by=by.value,
        count=count,
        min_cells=min_cells,
        source=scored("called_cells", cutoffs=cutoffs, region=region, corrections=not without_corrections),
    )
    short = {
        "slide_id": "slide",
        "rank": "rank",
        "x": "x px",
        "y": "y px",
        "radius_um": "radius µm",
        "n_cells": "cells",
        "n_positive": "positive",
        "share_percent": "share %",
        "density_per_mm2": "per mm²",
    }
    _show(found, short, form, output)


@app.command()
def spatial(
    results: ResultsArgument,
    marker: MarkerOption,
    slide: SlideOption = None,
    radius_um: Annotated[float, typer.Option(help="What is near, for the shares of positive cells.")] = 50.0,
    ripley_um: Annotated[
        list[float] | None,
        typer.Option(help="A radius of Ripley's L; give it again for more. By default 25, 50, 100, 200."),
    ] = None,
    hexagon_um: Annotated[float, typer.Option(help="Side of a hexagon.")] = 250.0,
    hexagon_cells: Annotated[int, typer.Option(help="Fewest cells of a hexagon that counts.")] = 50,
    hexagon_classes: Annotated[int, typer.Option(help="Classes of the index of hexagons.")] = 10,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show how positive cells lie on slides: nearest neighbours, clustering, heterogeneity.

    Median distance of positive cells to the next; share of positive among the cells near; Ripley's L less
    its radius, about 0 for positive cells at random and more for clusters, observed in the rectangle around
    all counted cells (so tissue that does not fill it seems clustered); entropy of the index of hexagons.

    The table on the screen is short; --format csv or --output have every column.
    """
    from deepliif_ray.places import RIPLEY_UM, find_spatial
    from deepliif_ray.query import scored

    form = chosen_format(form, output)
    radii = ripley_um or list(RIPLEY_UM)
    found = find_spatial(
        results,
        marker=marker,
        slides=slide or None,
        radius_um=radius_um,
        ripley_um=radii,
        hexagon_um=hexagon_um,
        hexagon_cells=hexagon_cells,
        hexagon_classes=hexagon_classes,
        source=scored("called_cells", cutoffs=cutoffs, region=region, corrections=not without_corrections),
    )
    short = {
        "slide_id": "slide",
        "n_positive": "positive",
        "nearest_positive_um": "nearest",
        "share_near_percent": "near %",
        "share_near_positive_percent": "near pos. %",
        f"l_minus_r_{radii[0]:g}_um": f"L−r {radii[0]:g}",
        f"l_minus_r_{radii[-1]:g}_um": f"L−r {radii[-1]:g}",
        "entropy_bits": "entropy",
    }
    _show(found, short, form, output)


def _show(found: "Found", short: dict[str, str], form: Format, output: "OutputOption") -> None:
    """Show a table, on the screen in few columns and with its notes below; and what is lacking."""
    table = found.table
    if form is Format.TABLE:
        table, notes = _shortened(table, short)
        show(table, form, output)
        for line in notes:
            errors.print(line, markup=False)
    else:
        show(table, form, output)
    for line in found.lacking:
        errors.print(visible(line), markup=False)


def _shortened(table: "pa.Table", short: dict[str, str]) -> tuple["pa.Table", list[str]]:
    import pyarrow as pa

    notes = table["notes"].to_pylist()
    numbers = {note: number for number, note in enumerate(dict.fromkeys(filter(None, notes)), start=1)}
    columns = {name: table[column] for column, name in short.items()}
    for name in ("x px", "y px"):
        if name in columns:
            columns[name] = pa.array([round(value) for value in columns[name].to_pylist()], pa.int64())
    columns["note"] = pa.array([numbers.get(note) for note in notes], pa.int64())
    return pa.table(columns), [f"note {number}: {note}" for note, number in numbers.items()]
