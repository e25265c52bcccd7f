"""Which slides of a cohort should be looked at."""

from dataclasses import dataclass

from deepliif_ray.query.streaming import Stream
from deepliif_ray.report.indices import SLIDES
from deepliif_ray.report.numbers import fixed

LEAST_SLIDES = 8
"""Slides of a marker with an index from which on its fences mean something."""
REACH = 1.5
"""Interquartile ranges beyond the quartiles where Tukey's fences stand."""

_ASK = f"""
WITH fences AS (
  SELECT marker, count(index_percent) AS n, quantile_cont(index_percent, 0.25) AS q1,
    quantile_cont(index_percent, 0.75) AS q3
  FROM {SLIDES} GROUP BY marker
),
judged AS (
  SELECT s.slide_id, s.patient_id, s.marker, s.index_percent, s.n_called, s.flags,
    greatest(q1 - {REACH} * (q3 - q1), 0) AS lower, least(q3 + {REACH} * (q3 - q1), 100) AS upper,
    CASE WHEN f.n >= {LEAST_SLIDES}
      THEN greatest(lower - s.index_percent, s.index_percent - upper) END AS beyond,
    coalesce(beyond > 0, false) AS is_out
  FROM {SLIDES} AS s JOIN fences AS f ON s.marker = f.marker
  WHERE s.n_called > 0 AND NOT s.is_damaged
)
SELECT * FROM judged WHERE is_out OR len(flags) > 0
ORDER BY is_out DESC, CASE WHEN is_out THEN beyond END DESC, len(flags) DESC, slide_id
"""


@dataclass(frozen=True)
class Outlier:
    """A slide that should be looked at, and why."""

    slide_id: str
    patient_id: str
    marker: str
    index_percent: float
    why: tuple[str, ...]


def find_outliers(stream: Stream) -> list[Outlier]:
    """Return slides whose index lies outside of Tukey's fences of its marker, and slides with flags.

    Those outside come first, farthest ones at the top; then those with the most flags.
    `deepliif_ray.report.indices.read_indices` comes first.
    """
    found = []
    for row in stream.table(_ASK).to_pylist():
        why = []
        if row["is_out"]:
            below = row["index_percent"] < row["lower"]
            fence = row["lower"] if below else row["upper"]
            side = "below" if below else "above"
            why.append(f"index {side} {fixed(fence)} %, the fence of {row['marker']} in this cohort")
        why += [f"flag {flag}" for flag in row["flags"]]
        found.append(
            Outlier(
                row["slide_id"],
                row["patient_id"],
                row["marker"],
                row["index_percent"],
                tuple(why),
            )
        )
    return found
