"""The command that evaluates models; a few lines over the library."""

from typing import TYPE_CHECKING, Annotated

import typer

from deepliif_ray.cli.common import FormatOption, app
from deepliif_ray.console import ProgressLine, errors, show
from deepliif_ray.errors import ConfigError

if TYPE_CHECKING:  # slow to import
    from deepliif_ray.evaluation.robustness import SweepProgress


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A name that `models` lists, or the URL of a model.")],
    other: Annotated[
        str | None, typer.Argument(metavar="[MODEL2]", help="A second one, to compare with the first.")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(help="URL of the images: N.png with N.csv (x, y, positive), folders of panels, strips."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="URL of images without truth; enough for --robustness.")
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="How far index and cells move with tint, gamma, blur, JPEG, scale, rotation and noise.",
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            help="URL of a folder for evaluation.json and a picture per image; or robustness.json and .svg."
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="Which truth: points, truth or seg; auto: what there is.")
    ] = "auto",
    protocol: Annotated[
        str,
        typer.Option(help="Compare masks by the paper's formulas, or as its published statistics do."),
    ] = "formulas",
    resolution: Annotated[
        str, typer.Option(help="Of images whose mpp is not known: 40x, 20x or 10x.")
    ] = "40x",
    mpp: Annotated[
        float | None,
        typer.Option(help="Micrometres per pixel of images that no mpp.csv (name, mpp) beside them lists."),
    ] = None,
    reach_um: Annotated[
        float | None, typer.Option(help="How far a hit may lie from a true centroid, µm; by default 2.5.")
    ] = None,
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
        bool, typer.Option("--per-image", help="A row an image, not a row a metric or step.")
    ] = False,
    form: FormatOption = None,
) -> None:
    """Evaluate a model, or compare two, on images with known truth; or see how robust one is."""
    of_marker = int(marker_thresh) if marker_thresh and marker_thresh.isdigit() else marker_thresh
    if robustness:
        if (truth is None) == (images is None):
            raise ConfigError("--robustness takes the images of --truth or of --images; give one of them")
        of_truth = {
            "MODEL2": other,
            "--kind": kind != "auto",
            "--protocol": protocol != "formulas",
            "--reach-um": reach_um is not None,
            "--modality": modality,
        }
        if idle := [name for name, value in of_truth.items() if value]:
            raise ConfigError(f"{', '.join(idle)} say nothing of one model's robustness; leave them out")
        from deepliif_ray.evaluation.robustness import measure_robustness

        with ProgressLine(_describe) as progress:
            found = measure_robustness(
                model,
                truth or images or "",
                output,
                resolution=resolution,
                mpp=mpp,
                device=device,
                precision=precision,
                size_thresh=size_thresh,
                marker_thresh=of_marker,
                watch=progress,
            )
        show(found.by_field if per_image else found.table, form)
        errors.print(found.described, markup=False)
    else:
        if truth is None or images is not None:
            raise ConfigError("give --truth, the images with their truth; --images goes with --robustness")
        from deepliif_ray.evaluation.evaluate import evaluate as run

        evaluation = run(
            [model] if other is None else [model, other],
            truth,
            output,
            kind=kind,
            resolution=resolution,
            mpp=mpp,
            device=device,
            precision=precision,
            modalities=modality or (),
            size_thresh=size_thresh,
            marker_thresh=of_marker,
            reach_um=reach_um,
            protocol=protocol,
        )
        show(evaluation.table if per_image else evaluation.summary, form)
        errors.print(evaluation.described, markup=False)
    if output is not None:
        errors.print(f"written: {output}", markup=False)


def _describe(progress: "SweepProgress") -> str:
    return f"{progress.done:,}/{progress.total:,} pictures · {progress.field} · {progress.sweep}"
