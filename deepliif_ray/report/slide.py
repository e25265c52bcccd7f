"""The report of a slide, with pictures, to print or to attach."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deepliif_ray import __version__, storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.exports.cells import Calls, slide_record, source_of
from deepliif_ray.exports.files import refuse_target, writing
from deepliif_ray.query.streaming import Stream, streaming
from deepliif_ray.report.choice import Choice, said_of
from deepliif_ray.report.indices import in_region_of, more_flags, why_unknown
from deepliif_ray.report.page import SUFFIXES, render
from deepliif_ray.report.pictures import Drawn, Shown, Watch, embedded
from deepliif_ray.report.quality import MEANINGS, MEASURES

FIELD_UM = 250.0
"""Side of the fields that are shown at full size."""
OVERVIEW_WIDTH, FIELD_WIDTH = 1000, 800

CUTOFFS = {
    "size_thresh": "Cells larger than this count, px",
    "size_thresh_upper": "Cells smaller than this count, px",
    "marker_thresh": "Positive above this marker value, grey level",
    "od_thresh_lower": "Negative below this optical density × 100",
    "od_thresh_upper": "Negative above this optical density × 100",
}
"""Columns of ``slide_cutoffs``, in words."""

_ASK_INDEX = """
SELECT i.*, n.flags, n.has_warnings, n.is_left, n.brief, n.min_cells, false AS is_damaged,
  {in_region} AS in_region
FROM {source} AS i JOIN slide_notes AS n ON i.slide_id = n.slide_id WHERE i.slide_id = ?
"""
# The field with the most positive cells; and of those with at least the median of the fields' cells, the one
# whose index comes nearest to the slide's.
_ASK_FIELDS = """
WITH squares AS (
  SELECT floor(x / {side})::INT AS field_column, floor(y / {side})::INT AS field_row, count(*) AS n,
    count_if(positive) AS n_positive
  FROM {source} GROUP BY ALL
),
judged AS (
  SELECT *, abs(n_positive / n - sum(n_positive) OVER () / sum(n) OVER ()) AS off,
    n >= median(n) OVER () AS is_full
  FROM squares
)
(SELECT 'most' AS field, field_column, field_row, n, n_positive FROM judged
  ORDER BY n_positive DESC, n DESC, field_row, field_column LIMIT 1)
UNION ALL
(SELECT 'typical', field_column, field_row, n, n_positive FROM judged WHERE is_full
  ORDER BY off, n DESC, field_row, field_column LIMIT 1)
"""
_FIELDS = {
    "most": "Field with the most positive cells",
    "typical": "A field whose index is near that of the slide",
}


@dataclass(frozen=True)
class SlideReport:
    """What was written.

    Attributes
    ----------
    file : str
    n_bytes : int
    n_pictures : int
    remarks : tuple of str
        Why pictures are missing, or are without their slide.
    """

    file: str
    n_bytes: int
    n_pictures: int
    remarks: tuple[str, ...]


def write_slide_report(
    results: str | os.PathLike[str],
    slide: str,
    output: str | os.PathLike[str],
    *,
    choice: Choice | None = None,
    overwrite: bool = False,
    now: datetime | None = None,
    watch: Watch | None = None,
) -> SlideReport:
    """Write the report of one slide into one HTML file that needs no network.

    Parameters
    ----------
    results, output, overwrite, now, watch
        As of `deepliif_ray.report.cohort.write_report`.
    slide : str
        Its id.
    choice : Choice, optional
        Which cells count; of ``pictures`` it takes three at most. The rest is about cohorts.

    Raises
    ------
    ConfigError
        There is no such slide, or it failed; or the file cannot be written or is there.
    QueryError
        Its cells are lost, or there are no such cut-offs or region.
    MissingExtraError, ResultsError, StorageError
        As of `deepliif_ray.report.cohort.write_report`.
    """
    url, target, choice = os.fspath(results), Path(output).absolute(), choice or Choice()
    refuse_target(target, SUFFIXES, overwrite=overwrite)
    with streaming(url) as stream, writing(target) as files:
        _refuse_failed(stream, url, slide)
        row = slide_record(stream, url, slide)
        values = _gather(stream, row, choice)
        wanted = _wanted(stream, row, choice) if values["index"]["n_called"] else []
        pictures = _draw(url, row, wanted[: choice.pictures], choice, watch or (lambda _: None))
        values |= {
            "title": "Slide report",
            "results": storage.scrub(url),
            "made_at": (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "version": __version__,
            "calls": said_of(choice.calls),
            "pictures": pictures,
        }
        files.of(target).write(render("slide.html", values, _data(values), scripts=[], plots=False).encode())
    shown = [picture for _, picture in pictures]
    return SlideReport(
        str(target),
        target.stat().st_size,
        sum(picture.source is not None for picture in shown),
        tuple(dict.fromkeys(remark for picture in shown for remark in picture.remarks)),
    )


def _refuse_failed(stream: Stream, url: str, slide: str) -> None:
    """Say of a slide that failed why it did, as it is in no other view."""
    scored = stream.table("SELECT 1 FROM slides WHERE slide_id = ?", [slide]).num_rows
    failed = stream.table("SELECT reason, message FROM failures WHERE slide_id = ?", [slide]).to_pylist()
    if failed and not scored:
        row = failed[0]
        raise ConfigError(
            f"{url}: slide {slide!r} was not scored, so there is nothing to report of; it failed with "
            f"{row['reason']}: {row['message']}"
        )


def _gather(stream: Stream, row: dict[str, Any], choice: Choice) -> dict[str, Any]:
    calls, slide = choice.calls, row["slide_id"]
    in_region, given = in_region_of(calls)
    query = _ASK_INDEX.format(source=calls.of("slide_indices"), in_region=in_region)
    (index,) = stream.table(query, [*given, slide]).to_pylist()
    (strength,) = stream.table(
        f"SELECT * FROM {calls.of_macro('slide_h_scores')} WHERE slide_id = ?", [slide]
    ).to_pylist()
    (cutoffs,) = stream.table(
        f"SELECT * FROM {Calls(calls.cutoffs).of_macro('slide_cutoffs')} WHERE slide_id = ?", [slide]
    ).to_pylist()
    (quality,) = stream.table("SELECT * FROM slide_quality WHERE slide_id = ?", [slide]).to_pylist()
    markers = stream.table("SELECT * FROM markers WHERE name = ?", [row["marker"]]).to_pylist()
    (annotated,) = stream.table(
        "SELECT (SELECT count(*) FROM corrections WHERE slide_id = ? AND is_current) AS n_corrections, "
        "(SELECT count(DISTINCT class) FROM region_areas WHERE slide_id = ?) AS n_classes",
        [slide, slide],
    ).to_pylist()
    row = row | {"model_uri": storage.scrub(row["model_uri"])}
    flags = [*index["flags"], *more_flags(index)]
    return {
        "row": row,
        "index": index,
        "unknown": why_unknown([index], calls),
        "flags": list(map(_told, flags)),
        "warnings": list(map(storage.scrub, row["warnings"])),
        "strength": strength,
        "cutoffs": [(title, cutoffs[name]) for name, title in CUTOFFS.items() if cutoffs[name] is not None],
        "measures": [
            (title, unit, row[name], _digits(row[name])) for name, (title, unit) in MEASURES.items()
        ],
        "quality": quality,
        "marker": markers[0] if markers else None,
        "annotated": annotated,
        "notices": [f"Flag {flag}: {meaning}." for flag, meaning in map(_told, flags)],
    }


def _told(flag: str) -> tuple[str, str]:
    return flag, MEANINGS.get(flag, "see docs/monitoring.md")


def _digits(value: float | None) -> int:
    """Return how many decimals tell a measure: three of what is small."""
    return 3 if value is None or abs(value) < 10 else 1


def _wanted(stream: Stream, row: dict[str, Any], choice: Choice) -> list[tuple[str, dict[str, Any]]]:
    """Return captions of pictures, and how each is drawn."""
    side = max(1, round(FIELD_UM / row["mpp"]))
    query = _ASK_FIELDS.format(side=side, source=source_of(choice.calls))
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("The slide: share of positive cells in squares", {"heat": "index", "width": OVERVIEW_WIDTH})
    ]
    seen = set()
    for field in stream.table(query, [row["slide_id"], row["marker"]]).to_pylist():
        x, y = max(0, field["field_column"] * side), max(0, field["field_row"] * side)
        at = x, y, min(side, row["width_px"] - x), min(side, row["height_px"] - y)
        if at in seen or min(at[2:]) < 1:
            continue
        seen.add(at)
        told = f"{_FIELDS[field['field']]}: x {x:,}, y {y:,} px, {FIELD_UM:g} µm wide"
        wanted.append((told, {"at": at, "width": FIELD_WIDTH}))
    return wanted


def _draw(
    url: str, row: dict[str, Any], wanted: list[tuple[str, dict[str, Any]]], choice: Choice, watch: Watch
) -> list[tuple[str, Shown]]:
    drawn = []
    for number, (caption, how) in enumerate(wanted):
        watch(Drawn(number, len(wanted), f"picture {number + 1}"))
        shown = embedded(url, row["slide_id"], choice.calls, without_slide=choice.without_slides, **how)
        drawn.append((caption, shown))
    return drawn


def _data(values: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers that the page shows, for programs."""
    told = (
        "slide_id", "patient_id", "marker", "n_called", "n_positive", "n_negative", "index_percent",
        "ci_lower_percent", "ci_upper_percent", "category", "tissue_mm2", "density_per_mm2",
        "positive_density_per_mm2",
    )  # fmt: skip
    return {
        "index": {name: values["index"][name] for name in told},
        "unknown": values["unknown"],
        "flags": [flag for flag, _ in values["flags"]],
        "h_score": values["strength"]["h_score"],
    }
