"""The command that converts negative cells of training panels to positive ones."""

from typing import Annotated

import typer

from deepliif_ray.cli.panels import panels_app
from deepliif_ray.console import errors


@panels_app.command("neg-to-pos")
def neg_to_pos(
    model: Annotated[str, typer.Argument(help="URL of a model trained with the objective neg-to-pos.")],
    panels: Annotated[str, typer.Argument(help="URL of the panels: a folder, or a listing.")],
    output: Annotated[str, typer.Argument(help="URL of the folder to write to.")],
    share: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of each tile's negative cells to convert.")
    ] = 70.0,
    seed: Annotated[int, typer.Option(min=0, help="Which cells are drawn.")] = 0,
    modality: Annotated[
        list[str] | None, typer.Option(help="A panel beside IHC and seg; repeatable; by default the four.")
    ] = None,
) -> None:
    """Convert a share of the negative cells of training panels to positive ones (the paper's Neg-to-Pos)."""
    from deepliif_ray.training.objectives.neg_to_pos import load_neg_to_pos
    from deepliif_ray.training.panels.conversion import convert_all
    from deepliif_ray.training.panels.files import MODALITIES, read_panels, write_panels
    from deepliif_ray.training.panels.listing import list_panels

    sources = list_panels(panels, modality or MODALITIES)
    tiles = (read_panels(source) for source in sources)
    for tile in convert_all(load_neg_to_pos(model), tiles, share, seed):
        write_panels(output, tile)
    errors.print(f"{len(sources)} tiles converted to {output}", markup=False)
