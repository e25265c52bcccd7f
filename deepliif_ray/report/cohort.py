"""The report of a cohort."""

import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deepliif_ray import __version__, storage
from deepliif_ray.agreement import DOUBTFUL, Agreement, between_slides
from deepliif_ray.errors import ConfigError
from deepliif_ray.exports.files import refuse_target, writing
from deepliif_ray.query.streaming import Stream, streaming
from deepliif_ray.report.choice import Choice, marker_named, said_of
from deepliif_ray.report.indices import BIN_PERCENT, SLIDES, Indices, read_indices
from deepliif_ray.report.origin import Origin, read_origin
from deepliif_ray.report.outliers import LEAST_SLIDES, Outlier, find_outliers
from deepliif_ray.report.page import render
from deepliif_ray.report.pictures import Drawn, Shown, Watch, embedded
from deepliif_ray.report.quality import MEASURES, Drift, Quality, read_drift, read_quality
from deepliif_ray.scoring.markers import registry_with
from deepliif_ray.tables.cohort import read_markers

SUFFIXES = (".html", ".htm")
MOST_LISTED = 5_000
"""Failures, and slides with flags, that are listed; all are counted."""
MAP_WIDTH = 560
Rows = list[dict[str, Any]]

_ASK_HEAD = f"""
SELECT
  (SELECT count(DISTINCT patient_id) FROM {SLIDES}) AS n_scored_patients,
  (SELECT count(*) FROM {SLIDES}) AS n_slides,
  (SELECT count(DISTINCT marker) FROM {SLIDES}) AS n_markers,
  (SELECT sum(n_called)::BIGINT FROM {SLIDES}) AS n_called,
  (SELECT sum(n_positive)::BIGINT FROM {SLIDES}) AS n_positive,
  (SELECT count_if(n_called IS NULL) FROM {SLIDES}) AS n_uncounted,
  (SELECT sum(tissue_mm2) FROM {SLIDES}) AS tissue_mm2,
  (SELECT count_if(tissue_mm2 IS NULL) FROM {SLIDES}) AS n_unmeasured
"""
_ASK_REPEATS = f"""
SELECT n, count(*) AS times FROM (
  SELECT count(*) AS n FROM {SLIDES} WHERE index_percent IS NOT NULL GROUP BY patient_id, marker
) WHERE n > 1 GROUP BY n ORDER BY times DESC, n LIMIT 1
"""


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
        found = _gather(stream, url, choice)
        pictures = _draw(url, found.outliers[: choice.pictures], choice, watch)
        text = _page(found, pictures, url, choice, now or datetime.now(UTC))
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


@dataclass(frozen=True)
class _Found:
    marker: str | None
    head: dict[str, Any]
    indices: Indices
    quality: Quality
    drift: Drift
    per_patient: int
    agreement: Agreement | None
    origin: Origin
    outliers: list[Outlier]


def _gather(stream: Stream, url: str, choice: Choice) -> _Found:
    marker = marker_named(url, stream, choice.marker)
    indices = read_indices(stream, choice.calls, marker)
    quality = read_quality(stream, marker)
    if not indices.slides and not quality.failures:
        raise ConfigError(f"{url}: no slide was scored yet, and none failed; there is nothing to report of")
    (head,) = stream.table(_ASK_HEAD).to_pylist()
    repeats = stream.table(_ASK_REPEATS).to_pylist()
    per_patient, agreement = 0, None
    if repeats:
        per_patient = repeats[0]["n"]
        registry = registry_with(read_markers(url), url)
        doubtful = stream.table(DOUBTFUL).to_pylist()
        agreement = between_slides(indices.slides, doubtful, registry, per_patient=per_patient)
    return _Found(
        marker,
        head,
        indices,
        quality,
        read_drift(stream, choice.by, marker),
        per_patient,
        agreement,
        read_origin(stream, marker, choice.price_per_hour),
        find_outliers(stream),
    )


def _draw(url: str, outliers: list[Outlier], choice: Choice, watch: Watch) -> list[tuple[Outlier, Shown]]:
    drawn = []
    for number, slide in enumerate(outliers):
        watch(Drawn(number, len(outliers), f"picture of slide {slide.slide_id}"))
        drawn.append(
            (
                slide,
                embedded(
                    url,
                    slide.slide_id,
                    choice.calls,
                    without_slide=choice.without_slides,
                    heat="index",
                    width=MAP_WIDTH,
                ),
            )
        )
    return drawn


def _page(
    found: _Found, pictures: list[tuple[Outlier, Shown]], url: str, choice: Choice, now: datetime
) -> str:
    """Return the page; see `deepliif_ray.report.page.render`."""
    known = [row for row in found.indices.patients if row["index_percent"] is not None]
    values = {
        "title": "Cohort report" + (f", {found.marker}" if found.marker else ""),
        "results": storage.scrub(url),
        "made_at": now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "version": __version__,
        "calls": said_of(choice.calls),
        "marker": found.marker,
        "head": _headline(found),
        "notices": _notices(found),
        "markers": found.indices.markers,
        "quality": found.quality,
        "flagged": len(_flagged(found)),
        "most_listed": MOST_LISTED,
        "drift": found.drift,
        "measures": MEASURES,
        "agreement": None if found.agreement is None else found.agreement.table.to_pylist(),
        "agreement_lines": [] if found.agreement is None else found.agreement.lines(),
        "per_patient": found.per_patient,
        "pictures": pictures,
        "n_outliers": len(found.outliers),
        "least_slides": LEAST_SLIDES,
        "origin": found.origin,
        "price_per_hour": choice.price_per_hour,
        "n_known": len(known),
    }
    plots = bool(known or found.drift.rows)
    scripts = ["tables.js", "cohort.js", *(["plots.js"] if plots else [])]
    return render("cohort.html", values, _data(found), scripts=scripts, plots=plots)


def _headline(found: _Found) -> dict[str, Any]:
    patients = found.indices.patients
    return found.head | {
        "n_patients": len({row["patient_id"] for row in patients}),
        "n_failed": len(found.quality.failures),
        "n_unknown": sum(row["index_percent"] is None for row in patients),
        "n_indices": len(patients),
        "n_flagged_slides": len(_flagged(found)),
        "n_too_few": sum("too_few_cells" in row["flags"] for row in patients),
    }


def _flagged(found: _Found) -> Rows:
    return [row for row in found.indices.slides if row["flags"]]


def _notices(found: _Found) -> list[str]:
    """Return what must not be overlooked, as sentences."""
    said = []
    runs = found.origin.runs
    if runs and runs[0]["status"] != "finished":
        said.append(
            f"The newest run, {runs[0]['run_id']}, is recorded as {runs[0]['status']}: slides may be missing."
        )
    digests = {row["model_digest"] for row in found.origin.models}
    if len(digests) > 1:
        said.append(f"Slides were scored by {len(digests)} different models; their indices may not compare.")
    prints = {row["config_fingerprint"] for row in found.origin.models}
    if len(prints) > 1:
        said.append(f"Slides were scored under {len(prints)} different configurations.")
    if found.quality.damaged:
        said.append(
            f"{len(found.quality.damaged)} stored objects are damaged and were passed over; see `deepliif-ray "
            "check`."
        )
    wrong = next((n for flag, _, n in found.quality.flags if flag == "not_hematoxylin_dab"), 0)
    if wrong:
        said.append(
            f"{wrong:,} slide{'s have' if wrong != 1 else ' has'} colours that hematoxylin and DAB do not "
            "make. Their indices mean nothing; they are flagged not_hematoxylin_dab wherever they stand."
        )
    return said


def _data(found: _Found) -> dict[str, Any]:
    """Return what the page's scripts read: long tables by column, and what plots show."""
    rows = found.indices.patients
    patients = sorted({row["patient_id"] for row in rows})
    markers = sorted({row["marker"] for row in rows})
    at = {name: number for number, name in enumerate(patients)}
    of = {name: number for number, name in enumerate(markers)}
    flags = sorted({flag for row in rows for flag in row["flags"]})
    place = {name: number for number, name in enumerate(flags)}
    return {
        "patients": patients,
        "markers": markers,
        "flags": flags,
        "indices": {
            "patient": [at[row["patient_id"]] for row in rows],
            "marker": [of[row["marker"]] for row in rows],
            "flags": [[place[flag] for flag in row["flags"]] for row in rows],
            **_columns(
                rows,
                "n_slides", "n_called", "n_positive", "index_percent", "ci_lower_percent", "ci_upper_percent",
                "category", "unknown",
            ),
        },
        "summaries": [
            {"name": m.name, "bins": m.bins, "categories": [asdict(c) for c in m.categories]}
            for m in found.indices.markers
        ],
        "bin_percent": BIN_PERCENT,
        "flagged": _columns(
            [
                row | {"warnings": found.quality.warnings.get(row["slide_id"], [])}
                for row in _flagged(found)[:MOST_LISTED]
            ],
            "slide_id", "patient_id", "marker", "index_percent", "n_called", "flags", "warnings", "unknown",
        ),
        "failures": _columns(
            found.quality.failures[:MOST_LISTED],
            "slide_id", "patient_id", "marker", "stage", "reason", "message",
        ),
        "drift": {
            "by": found.drift.by,
            "values": found.drift.values,
            "measures": {name: {"title": t, "unit": u} for name, (t, u) in MEASURES.items()},
            "rows": found.drift.rows,
        },
        "agreement": _compared(found),
    }  # fmt: skip


def _columns(rows: Rows, *names: str) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in names}


def _compared(found: _Found) -> Rows:
    """Return the pairs of each marker with limits of agreement, for its plot."""
    if found.agreement is None or found.per_patient != 2:
        return []
    pairs: dict[str, Rows] = {}
    for row in found.agreement.pairs.to_pylist():
        first, second = row["indices_percent"]
        pairs.setdefault(row["marker"], []).append({"name": row["name"], "first": first, "second": second})
    told = ("marker", "n", "bias_percent", "limit_lower_percent", "limit_upper_percent")
    return [
        {name: row[name] for name in told} | {"pairs": pairs[row["marker"]]}
        for row in found.agreement.table.to_pylist()
        if row["marker"] in pairs
    ]

