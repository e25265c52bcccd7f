"""Commands that write cells as CSV, AnnData, SpatialData, DICOM annotations and label images."""

from pathlib import Path
from typing import Annotated

import typer

from deepliif_ray.annotations.origin import Origin
from deepliif_ray.cli.common import CutoffsOption, RegionOption, WithoutCorrectionsOption, area_of
from deepliif_ray.cli.export import (
    OverwriteOption,
    SlideOption,
    StrengthOption,
    calls_of,
    export_app,
    write,
)
from deepliif_ray.cli.results import ResultsArgument

CornerOption = Annotated[
    Origin | None,
    typer.Option(
        help="Where coordinates begin: at the slide's corner, which is the default, or at the scanned area, "
        "as in QuPath."
    ),
]


@export_app.command()
def csv(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="The file to write: .csv, or .csv.gz.")],
    slide: SlideOption = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    origin: CornerOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the counted cells of a slide as CSV: a row a cell, with calls, centroids and measurements.

    `sql --output` writes any other table.
    """
    from deepliif_ray.exports.csv_table import export_csv

    calls = calls_of(cutoffs, region, without_corrections)
    write(export_csv, results, output, calls, slide=slide, origin=origin, overwrite=overwrite)


@export_app.command()
def anndata(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="The file to write: .h5ad.")],
    slide: SlideOption = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    origin: CornerOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the counted cells of a slide as AnnData, for scanpy and squidpy.

    Calls and measurements are in obs, measurements again in X, centroids in obsm["spatial"]: pixels of level
    0.
    """
    from deepliif_ray.exports.h5ad import export_anndata

    calls = calls_of(cutoffs, region, without_corrections)
    write(export_anndata, results, output, calls, slide=slide, origin=origin, overwrite=overwrite)


@export_app.command()
def spatialdata(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="The folder to write: .zarr.")],
    slide: SlideOption = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    origin: CornerOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the counted cells of a slide as SpatialData: outlines, centroids, a table; in pixels and µm."""
    from deepliif_ray.exports.spatial_data import export_spatialdata

    calls = calls_of(cutoffs, region, without_corrections)
    write(export_spatialdata, results, output, calls, slide=slide, origin=origin, overwrite=overwrite)


@export_app.command("dicom-annotations")
def dicom_annotations(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="The file to write: .dcm.")],
    slide: SlideOption = None,
    strength: StrengthOption = False,
    points: Annotated[bool, typer.Option("--points", help="Centroids and no outlines: far smaller.")] = False,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the counted cells of a DICOM slide as annotations that refer to it: a group for each class.

    The slide must be where it was scored. It gives patient, study, specimen and identifiers.
    """
    from deepliif_ray.exports.dicom import export_dicom_annotations

    calls = calls_of(cutoffs, region, without_corrections)
    write(
        export_dicom_annotations,
        results,
        output,
        calls,
        slide=slide,
        strength=strength,
        points=points,
        overwrite=overwrite,
    )


@export_app.command()
def labels(
    results: ResultsArgument,
    output: Annotated[Path, typer.Argument(help="What to write: .ome.tiff, or a folder .zarr.")],
    slide: SlideOption = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="X,Y,WIDTH,HEIGHT", help="The area, in pixels of level 0; by default all."),
    ] = None,
    region: RegionOption = None,
    cutoffs: CutoffsOption = None,
    without_corrections: WithoutCorrectionsOption = False,
    origin: CornerOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the counted cells of a slide, or of an area, as a label image: a pixel is cell_id + 1, or 0.

    OME-TIFF or OME-Zarr 0.5, with overviews, pixel size and place.
    """
    from deepliif_ray.exports.labels import export_labels

    calls = calls_of(cutoffs, region, without_corrections)
    write(
        export_labels,
        results,
        output,
        calls,
        slide=slide,
        at=None if at is None else area_of("--at", at),
        origin=origin,
        overwrite=overwrite,
    )
