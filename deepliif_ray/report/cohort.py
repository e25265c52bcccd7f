"""The report of a cohort."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deepliif_ray.exports.files import refuse_target, writing
from deepliif_ray.query.streaming import streaming
from deepliif_ray.report.choice import Choice
from deepliif_ray.report.cohort_page import page
from deepliif_ray.report.findings import gather
from deepliif_ray.report.outliers import Outlier
from deepliif_ray.report.page import SUFFIXES
from deepliif_ray.report.pictures import Drawn, Shown, Watch, embedded

MAP_WIDTH = 560


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes
    ----------
    file : str
    n_bytes : int
    n_patients, n_slides : int
        That it is about; slides that failed included.
    n_pictures : int
    remarks : tuple of str
        Why pictures are missing, or are without their slides.
    """

    file: str
    n_bytes: int
    n_patients: int
    n_slides: int
    n_pictures: int
    remarks: tuple[str, ...]


def write_report(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    choice: Choice | None = None,
    overwrite: bool = False,
    now: datetime | None = None,
    watch: Watch | None = None,
) -> Report:
    """Write the report of a cohort into one HTML file that needs no network.

    The same results give the same file, but for the time of making, which it tells.

    Parameters
    ----------
    results : str or path
        URL of the results.
    output : str or path
        The local file: ``.html``.
    choice : Choice, optional
        Which cells count, which marker, how many pictures.
    overwrite : bool
        Replace the file if there is one.
    now : datetime, optional
        The time of making that it tells, with its zone.
    watch : callable, optional
        Told of each picture.

    Raises
    ------
    ConfigError
        There is nothing to report of, no such marker, or the file cannot be written or is there.
    QueryError
        There are no such cut-offs, region or column.
    MissingExtraError
        Pictures are wanted, and what draws them is not installed.
    ResultsError, StorageError
        See `deepliif_ray.connect`; or the file cannot be written.
    """
    url, target, choice = os.fspath(results), Path(output).absolute(), choice or Choice()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    watch = watch or (lambda _: None)
    with streaming(url) as stream, writing(target) as files:
        found = gather(stream, url, choice)
        pictures = _draw(url, found.outliers[: choice.pictures], choice, watch)
        text = page(found, pictures, url, choice, now or datetime.now(UTC))
        files.of(target).write(text.encode())
    patients = {row["patient_id"] for row in found.indices.patients}
    remarks = tuple(
        f"slide {slide.slide_id!r}: {remark}" for slide, shown in pictures for remark in shown.remarks
    )
    return Report(
        str(target),
        target.stat().st_size,
        len(patients),
        found.head["n_slides"] + len(found.quality.failures),
        sum(shown.source is not None for _, shown in pictures),
        remarks,
    )


def _draw(url: str, outliers: list[Outlier], choice: Choice, watch: Watch) -> list[tuple[Outlier, Shown]]:
    how = {"heat": "index", "width": MAP_WIDTH}
    white = choice.without_slides
    drawn = []
    for number, slide in enumerate(outliers):
        watch(Drawn(number, len(outliers), f"picture of slide {slide.slide_id}"))
        drawn.append((slide, embedded(url, slide.slide_id, choice.calls, without_slide=white, **how)))
    return drawn
