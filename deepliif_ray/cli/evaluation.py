"""The command that evaluates models; a few lines over the library."""

from typing import Annotated

import typer

from deepliif_ray.cli.common import FormatOption, app
from deepliif_ray.console import errors, show


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A name that `models` lists, or the URL of a model.")],
    truth: Annotated[
        str,
        typer.Option(help="URL of the images: N.png with N.csv (x, y, positive), folders of panels, strips."),
    ],
    other: Annotated[
        str | None, typer.Argument(metavar="[MODEL2]", help="A second one, to compare with the first.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="URL of a folder for evaluation.json and a picture per image.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="Which truth: points, truth or seg; auto: what there is.")
    ] = "auto",
    resolution: Annotated[str, typer.Option(help="Of the images: 40x, 20x or 10x.")] = "40x",
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; by default the GPU if there is one.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16; by default by device.")] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="A modality to compare, by the model's name for it; repeatable.")
    ] = None,
    size_thresh: Annotated[
        int | None, typer.Option(help="Count cells larger than this, px; by default each image's own.")
    ] = None,
    marker_thresh: Annotated[
        str | None,
        typer.Option(help="Marker value that makes a cell positive, or 'default'; off if not given."),
    ] = None,
    per_image: Annotated[
        bool, typer.Option("--per-image", help="A row an image, not a row a metric.")
    ] = False,
    form: FormatOption = None,
) -> None:
    """Evaluate a model, or compare two, on images with known truth."""
    from deepliif_ray.evaluation.evaluate import evaluate as run

    evaluation = run(
        [model] if other is None else [model, other],
        truth,
        output,
        kind=kind,
        resolution=resolution,
        device=device,
        precision=precision,
        modalities=modality or (),
        size_thresh=size_thresh,
        marker_thresh=int(marker_thresh) if marker_thresh and marker_thresh.isdigit() else marker_thresh,
    )
    show(evaluation.table if per_image else evaluation.summary, form)
    if output is not None:
        errors.print(f"written: {output}", markup=False)
