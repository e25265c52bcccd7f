"""What the report of a cohort tells, asked for."""

from dataclasses import dataclass
from typing import Any

from deepliif_ray.agreement import DOUBTFUL, Agreement, between_slides
from deepliif_ray.errors import ConfigError
from deepliif_ray.query.streaming import Stream
from deepliif_ray.report.choice import Choice, marker_named
from deepliif_ray.report.indices import SLIDES, Indices, read_indices
from deepliif_ray.report.origin import Origin, read_origin
from deepliif_ray.report.outliers import Outlier, find_outliers
from deepliif_ray.report.quality import Drift, Quality, read_drift, read_quality
from deepliif_ray.scoring.markers import registry_with
from deepliif_ray.tables.cohort import read_markers

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
class Findings:
    """All that the report of a cohort tells, but for its pictures.

    Attributes
    ----------
    marker : str or None
        The only one, if one was asked for.
    head : dict
        Counts of all slides.
    indices : Indices
    quality : Quality
    drift : Drift
    per_patient : int
        Slides of each patient that are compared: the number that most patients have, of those with several.
    agreement : Agreement or None
        None where no patient has several slides of a marker.
    origin : Origin
    outliers : list of Outlier
    """

    marker: str | None
    head: dict[str, Any]
    indices: Indices
    quality: Quality
    drift: Drift
    per_patient: int
    agreement: Agreement | None
    origin: Origin
    outliers: list[Outlier]


def gather(stream: Stream, url: str, choice: Choice) -> Findings:
    """Ask for all that the report of a cohort tells.

    Raises
    ------
    ConfigError
        There is nothing to report of, or no such marker.
    QueryError
        There are no such cut-offs, region or column.
    """
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
    return Findings(
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
