"""Commands that check and make panels, the tiles that models are trained on."""

import functools
import os
from collections.abc import Callable
from typing import Annotated

import typer

from deepliif_ray.cli.common import FormatOption, app, stoppable
from deepliif_ray.cli.journeys import Group
from deepliif_ray.console import errors, show

panels_app = typer.Typer(
    cls=Group, help="Check and make panels: the tiles that models are trained on.", no_args_is_help=True
)
app.add_typer(panels_app, name="panels")

ModalitiesOption = Annotated[
    list[str] | None,
    typer.Option("--modality", help="A panel between IHC and segmentation; repeat it, in order."),
]


def _share_done(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,}/{counts[1]:,} tiles"


@panels_app.command()
def check(
    uris: Annotated[list[str], typer.Argument(help="URLs of strips, folders of panels, or manifests.")],
    modalities: ModalitiesOption = None,
    form: FormatOption = None,
) -> None:
    """Read panels as training would, and show how many there are, of which size; name the bad files."""
    from deepliif_ray.training.panels.files import MODALITIES, refuse
    from deepliif_ray.training.panels.store import check_panels

    table, problems = check_panels(uris, modalities or MODALITIES)
    show(table, form)
    refuse(problems)


@panels_app.command()
def truth(
    mask: Annotated[str, typer.Argument(help="URL of the instance mask: grey PNG or TIFF, or .npy.")],
    marker: Annotated[str, typer.Argument(help="URL of the mpIF marker image of the same tile.")],
    output: Annotated[str, typer.Argument(help="URL of the PNG to write.")],
    threshold: Annotated[
        float | None,
        typer.Option(help="Marker value, 0–255, that makes a cell positive; by default derived."),
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="Of a cell's pixels, its value; by default their mean.")
    ] = None,
    width: Annotated[int, typer.Option(help="Width of the outlines, px.")] = 2,
) -> None:
    """Make a segmentation panel: cells red where the marker is expressed, else blue, outlined in green."""
    from deepliif_ray.training.panels.instances import write_truth

    made = write_truth(mask, marker, output, threshold=threshold, percentile=percentile, width=width)
    positive = int(made.positive.sum())
    errors.print(f"{len(made.labels):,} cells, {positive:,} of them above {made.threshold:.1f} and positive")


@panels_app.command()
def distill(
    model: Annotated[str, typer.Argument(help="A name that `models` lists, or the URL of a model.")],
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE... OUTPUT", help="Slides, images, folders or manifests; OUTPUT."),
    ],
    modalities: ModalitiesOption = None,
    tile_size: Annotated[int, typer.Option(help="Side of the panels, px.")] = 512,
    max_tiles: Annotated[int | None, typer.Option(help="Most tiles; by default all with tissue.")] = None,
    assume_mpp: Annotated[float | None, typer.Option(help="µm per px of slides that do not say.")] = None,
    target_mpp: Annotated[float, typer.Option(help="µm per px of the panels; 0.25 is 40x.")] = 0.25,
    min_tissue_percent: Annotated[float, typer.Option(help="Least share of tissue in a tile.")] = 50.0,
    seed: Annotated[int, typer.Option(help="Decides which tiles are taken.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16; by default by device.")] = None,
) -> None:
    """Write strips of what a model makes of unlabelled slides; the last URL is the folder to write to."""
    from deepliif_ray.training.panels.distill import distill as run
    from deepliif_ray.training.panels.files import MODALITIES

    *given, output = sources
    if not given:
        raise typer.BadParameter("give at least one SOURCE before OUTPUT")
    with stoppable(_share_done) as progress:
        count = run(
            model,
            given,
            output,
            modalities=modalities or MODALITIES,
            tile_size=tile_size,
            max_tiles=max_tiles,
            assume_mpp=assume_mpp,
            target_mpp=target_mpp,
            seed=seed,
            device=device,
            precision=precision,
            min_tissue_percent=min_tissue_percent,
            watch=lambda done, total: progress((done, total)),
        )
    errors.print(f"{count:,} strips written to {output}", markup=False)


@panels_app.command()
def synthesize(
    output: Annotated[str, typer.Argument(help="URL of the folder to write to.")],
    count: Annotated[int, typer.Option(min=1, help="Tiles to make.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Everything follows from it.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the panels, px.")] = 512,
) -> None:
    """Write strips of synthetic tissue with known nuclei."""
    make = functools.partial(_synthesize, output, seed, size)
    with stoppable(_share_done) as progress:
        _in_parallel(make, count, lambda done: progress((done, count)))
    errors.print(f"{count:,} strips written to {output}", markup=False)


def _synthesize(output: str, seed: int, size: int, index: int) -> None:
    from deepliif_ray.synthetic.panels import synthetic_panels
    from deepliif_ray.training.panels.files import write_panels

    write_panels(output, synthetic_panels(seed, index, size))


def _in_parallel(make: Callable[[int], None], count: int, watch: Callable[[int], None]) -> None:
    from concurrent.futures import ProcessPoolExecutor  # slow to import
    from multiprocessing import get_context

    workers = min(os.cpu_count() or 1, count)
    # Not forked: this process has threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(make, range(count), chunksize=4), start=1):
            watch(done)
