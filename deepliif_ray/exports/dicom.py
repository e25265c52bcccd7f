"""Cells as DICOM Microscopy Bulk Simple Annotations: a group for each class, referring to the slide.

Coordinates are columns and rows of the total pixel matrix, counted from its upper left corner: the pixel-edge
coordinates of level 0 of the other exports.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from deepliif_ray import __version__
from deepliif_ray.errors import SlideUnsuitableError
from deepliif_ray.exports.cells import Calls, Exported, called_cells, slide_record, source_of
from deepliif_ray.exports.columns import provenance, refuse_more
from deepliif_ray.exports.files import placing, refuse_target
from deepliif_ray.exports.outlines import enclosing_outlines
from deepliif_ray.exports.qupath import CLASSES, class_names
from deepliif_ray.query.streaming import Stream, streaming
from deepliif_ray.slide_access import scored_slide

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = (".dcm",)
MOST_CELLS = 2_000_000
"""About 4 GB: a million with outlines took 2."""
_COLUMNS = "x, y, positive, strength, cell_id, area_um2"
_NEEDED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime",
)  # fmt: skip
_LONGEST = 64
"""Characters that DICOM takes in a short text."""
Arrays = list[NDArray[np.float32]]


def export_dicom_annotations(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    slide: str | None = None,
    calls: Calls | None = None,
    strength: bool = False,
    points: bool = False,
    overwrite: bool = False,
    watch: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write the counted cells of a DICOM slide as Microscopy Bulk Simple Annotations that refer to it.

    The slide is opened to take patient, study, specimen and identifiers from it, and only if it is still the
    one that was scored. There is a group for each class that has cells: nuclei, with their area in µm², found
    by the model that is named as the algorithm. Where people corrected calls and these count, groups are
    semiautomatic, else automatic.

    Parameters
    ----------
    results : str or path
        URL of the results.
    output : str or path
        The local file: ``.dcm``.
    slide : str, optional
        Its id; needed where the results have several.
    calls : Calls, optional
        Which cells count and how they are called; by default as published, with corrections.
    strength : bool
        Groups Negative, 1+, 2+ and 3+, by the stain of DAB, and not Negative and Positive.
    points : bool
        Centroids and no outlines.
    overwrite : bool
        Replace the file if there is one.
    watch : callable
        Told how far it is.

    Returns
    -------
    Exported

    Raises
    ------
    ConfigError
        There is no such slide, or several and none named; or it has more than `MOST_CELLS`; or the file
        cannot be written or is there.
    QueryError
        No cell counts, or there are no such cut-offs or region, or they say nothing of the strength.
    SlideError
        The slide is no DICOM, is not to be had, or is not the one that was scored.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the file cannot be written.
    """
    url, target, calls = os.fspath(results), Path(output).absolute(), calls or Calls()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    import highdicom  # noqa: F401  # slow to import, and perhaps not there: then it is said before the work

    with streaming(url) as stream:
        row = slide_record(stream, url, slide)
        source = _source(row)
        refuse_more(stream, row, source_of(calls), MOST_CELLS, "take part of them with --region")
        is_corrected = calls.corrections and _is_corrected(stream, row)
        places: dict[str, Arrays] = {}
        areas: dict[str, Arrays] = {}
        count = 0
        for cells in called_cells(stream, row, calls, _COLUMNS if points else f"{_COLUMNS}, boundary"):
            names = np.array(class_names(cells, row["slide_id"], strength=strength))
            found = _points(cells) if points else _polygons(cells)
            area = cells["area_um2"].to_numpy().astype(np.float32)
            for name in CLASSES:
                chosen = np.flatnonzero(names == name).tolist()
                if chosen:
                    places.setdefault(name, []).extend(found[n] for n in chosen)
                    areas.setdefault(name, []).append(area[chosen])
            count += cells.num_rows
            watch(Exported(row["slide_id"], count))
    groups = [
        _group(number, name, places[name], np.concatenate(areas[name]), row, points, is_corrected)
        for number, name in enumerate((name for name in CLASSES if name in places), 1)
    ]
    made = _dataset(source, groups, row, calls)
    with placing(target) as path:
        made.save_as(path)
    return Exported(row["slide_id"], count, (str(target),))


def _source(row: Mapping[str, Any]) -> "Dataset":
    """Return the header of the slide's image of level 0.

    Raises
    ------
    SlideError
        It is no DICOM, or lacks what annotations refer to.
    """
    from pydicom import Dataset

    uri = row["uri"]
    with scored_slide(row) as slide:
        header = slide.dicom_header()
    if header is None:
        raise SlideUnsuitableError(
            f"{uri}: no DICOM slide, and DICOM annotations refer to one; convert the slide to DICOM (with "
            "wsidicomizer, for example) and score that, or use another export"
        )
    source = Dataset.from_json(header)
    lacks = [name for name in _NEEDED if not source.get(name)]
    if lacks:
        raise SlideUnsuitableError(f"{uri}: its DICOM header lacks {', '.join(lacks)}; annotations need them")
    if (source.get("TotalPixelMatrixColumns"), source.get("TotalPixelMatrixRows")) != (
        row["width_px"],
        row["height_px"],
    ):
        raise SlideUnsuitableError(
            f"{uri}: its DICOM header tells another size than the image that was scored; annotations would "
            "lie elsewhere; export the slide again"
        )
    for name in _MAY_BE_EMPTY:
        if name not in source:
            setattr(source, name, "")
    return source


def _is_corrected(stream: Stream, row: Mapping[str, Any]) -> bool:
    query = "SELECT count(*) AS n FROM corrections WHERE slide_id = ? AND is_current"
    return bool(stream.table(query, [row["slide_id"]])["n"][0].as_py())


def _points(cells: pa.Table) -> Arrays:
    at = np.column_stack([cells["x"].to_numpy(), cells["y"].to_numpy()]) + 0.5
    return list(at.astype(np.float32)[:, None])


def _polygons(cells: pa.Table) -> Arrays:
    """Return the corners of outlines; the first one is not repeated at the end."""
    outlines = enclosing_outlines(cells["boundary"].to_numpy())
    corners, owner = shapely.get_coordinates(outlines, return_index=True)
    ends = np.flatnonzero(np.diff(owner, append=len(outlines))) + 1
    rings = np.split(corners.astype(np.float32), ends[:-1])
    return [ring[:-1] for ring in rings]


def _group(
    number: int,
    name: str,
    places: Arrays,
    areas: NDArray[np.float32],
    row: Mapping[str, Any],
    points: bool,
    is_corrected: bool,
) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name=row["model_name"][:_LONGEST],
        family=codes.DCM.ArtificialIntelligence,
        version=row["model_digest"][:_LONGEST],
        source=f"deepliif_ray {row['software_version']}",
    )
    description = f"Nuclei called {name}"
    return hd.ann.AnnotationGroup(
        number=number,
        uid=hd.UID(),
        label=name,
        annotated_property_category=codes.SCT.AnatomicalStructure,
        annotated_property_type=codes.SCT.Nucleus,
        graphic_type=hd.ann.GraphicTypeValues.POINT if points else hd.ann.GraphicTypeValues.POLYGON,
        graphic_data=places,
        algorithm_type="SEMIAUTOMATIC" if is_corrected else "AUTOMATIC",
        algorithm_identification=algorithm,
        measurements=[hd.ann.Measurements(codes.SCT.Area, areas, codes.UCUM.SquareMicrometer)],
        description=f"{description}; people corrected some" if is_corrected else description,
        display_color=hd.color.CIELabColor.from_rgb(*CLASSES[name]),
    )


def _dataset(source: "Dataset", groups: list[Any], row: Mapping[str, Any], calls: Calls) -> "Dataset":
    import highdicom as hd

    told = provenance(row, calls, (0, 0))
    called = ", ".join(f"{name} {told[name]}" for name in ("cutoffs", "region") if told[name])
    made: Dataset = hd.ann.MicroscopyBulkSimpleAnnotations(
        [source],
        annotation_coordinate_type=hd.ann.AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=groups,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="deepliif_ray",
        manufacturer_model_name=row["model_name"][:_LONGEST],
        software_versions=__version__,
        device_serial_number=row["model_digest"][:_LONGEST],
        content_label="NUCLEI",
        content_description=f"Nuclei, {row['marker']}{', ' * bool(called)}{called}"[:_LONGEST],
        pixel_origin_interpretation=hd.ann.PixelOriginInterpretationValues.VOLUME,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    return made
