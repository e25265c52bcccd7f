"""The page of a cohort: what its template writes, and what its scripts read."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from deepliif_ray import __version__, storage
from deepliif_ray.report.choice import Choice, said_of
from deepliif_ray.report.findings import Findings
from deepliif_ray.report.indices import BIN_PERCENT
from deepliif_ray.report.outliers import LEAST_SLIDES, Outlier
from deepliif_ray.report.page import render
from deepliif_ray.report.pictures import Shown
from deepliif_ray.report.quality import MEASURES

MOST_LISTED = 5_000
"""Failures, and slides with flags, that are listed; all are counted."""
Rows = list[dict[str, Any]]


def page(
    found: Findings, pictures: list[tuple[Outlier, Shown]], url: str, choice: Choice, now: datetime
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


def _headline(found: Findings) -> dict[str, Any]:
    patients = found.indices.patients
    return found.head | {
        "n_patients": len({row["patient_id"] for row in patients}),
        "n_failed": len(found.quality.failures),
        "n_unknown": sum(row["index_percent"] is None for row in patients),
        "n_indices": len(patients),
        "n_flagged_slides": len(_flagged(found)),
        "n_too_few": sum("too_few_cells" in row["flags"] for row in patients),
    }


def _flagged(found: Findings) -> Rows:
    return [row for row in found.indices.slides if row["flags"]]


def _notices(found: Findings) -> list[str]:
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
            f"{len(found.quality.damaged)} stored objects are damaged and were passed over; see "
            "`deepliif-ray check`."
        )
    wrong = next((n for flag, _, n in found.quality.flags if flag == "not_hematoxylin_dab"), 0)
    if wrong:
        said.append(
            f"{wrong:,} slide{'s have' if wrong != 1 else ' has'} colours that hematoxylin and DAB do not "
            "make. Their indices mean nothing; they are flagged not_hematoxylin_dab wherever they stand."
        )
    return said


def _data(found: Findings) -> dict[str, Any]:
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


def _compared(found: Findings) -> Rows:
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
