"""The command that writes what a model infers of a slide."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.cli.common import app, area_of
from deepliif_ray.cli.scoring import ModelOption
from deepliif_ray.console import ProgressLine, errors, visible

if TYPE_CHECKING:
    from deepliif_ray.modalities import Inferred


@app.command()
def infer(
    slide: Annotated[str, typer.Argument(help="URL or path of the slide.")],
    output: Annotated[Path, typer.Argument(help="The file to write: .ome.tiff.")],
    region: Annotated[
        str | None,
        typer.Option(metavar="X,Y,WIDTH,HEIGHT", help="The region, in pixels of level 0; by default all."),
    ] = None,
    modalities: Annotated[
        str | None,
        typer.Option(help="Which images, as in hematoxylin,dapi,segmentation; by default all it makes."),
    ] = None,
    model: ModelOption = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel, if the file does not say.")] = None,
    tile_size: Annotated[int | None, typer.Option(min=16, max=4096, help="As of `score`.")] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="As of `score`.")] = None,
    series: Annotated[int | None, typer.Option(min=0, help="Which image of the file, from 0.")] = None,
    plane: Annotated[int | None, typer.Option(min=0, help="Which focal plane, from 0.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if any.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16, as of `score`.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Tiles that networks run at once on a GPU.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Run a model on a slide or a region, and write the modalities and the segmentation that it infers.

    The file is a pyramidal OME-TIFF with an image for each. Try a region first: a whole slide takes as long
    as scoring it.
    """
    from deepliif_ray.config import DEFAULT_MODEL
    from deepliif_ray.modalities import infer_modalities

    with ProgressLine(_line) as progress:
        done = infer_modalities(
            slide,
            output,
            region=None if region is None else area_of("--region", region),
            modalities=() if modalities is None else modalities.split(","),
            model=model or DEFAULT_MODEL,
            mpp=mpp,
            tile_size=tile_size,
            overlap=overlap,
            series=series,
            plane=plane,
            device=device,
            precision=precision,
            batch_size=batch_size,
            overwrite=overwrite,
            watch=progress,
        )
    for warning in done.warnings:
        errors.print(f"warning: {visible(warning)}", markup=False)
    x, y, width, height = done.area
    errors.print(
        f"{output}: {', '.join(done.names)}; {width:,} × {height:,} px from {x:,}, {y:,}; "
        f"the model ran on {done.n_inferred:,} of {done.n_tiles:,} tiles",
        markup=False,
    )


def _line(done: "Inferred") -> str:
    writing = ", writing the file" if done.is_writing else ""
    return f"{done.n_done:,} of {done.n_tiles:,} tiles{writing}"
