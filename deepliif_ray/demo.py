"""The demonstration: synthetic slides with known truth, scored and compared."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from deepliif_ray.config import Execution
from deepliif_ray.engine.run.progress import Progress
from deepliif_ray.engine.score import score
from deepliif_ray.query import ask
from deepliif_ray.synthetic import write_demo_cohort


@dataclass(frozen=True)
class DemoReport:
    """Patient indices beside the truth, and what to run next."""

    table: pa.Table
    next_steps: tuple[str, ...]


def run_demo(
    folder: Path,
    *,
    execution: Execution = Execution(),
    watch: Callable[[Progress], None] | None = None,
    say: Callable[[str], None],
    command: str = "deepliif-ray",
) -> DemoReport:
    """Write the cohort to ``folder/cohort``, score it to ``folder/results``, and compare.

    ``say`` is told what happens; ``command`` is what the next steps begin with.

    Raises
    ------
    DeepliifRayError
        See `deepliif_ray.engine.score.score`.
    """
    say(f"writing synthetic slides to {folder / 'cohort'}")
    manifest = write_demo_cohort(folder / "cohort")
    results = str(folder / "results")
    say(f"scoring {manifest} to {results}")
    summary = score(str(manifest), results, execution=execution, watch=watch)
    say(
        f"{summary.scored} slides scored, {summary.skipped} done before, {summary.failed} failed; "
        f"{summary.cells:,} cells in {summary.seconds:.1f} s"
    )
    truth = (
        pl.read_csv(manifest.with_name("truth.csv"), schema_overrides={"patient_id": pl.String})
        .group_by("patient_id", "marker")
        .agg(true_cells=pl.col("cells").sum(), true_positive=pl.col("positive").sum())
        .with_columns(true_index_percent=100 * pl.col("true_positive") / pl.col("true_cells"))
        .drop("true_positive")
    )
    found = pl.from_arrow(
        ask(
            results,
            "SELECT patient_id, marker, n_slides, n_called, index_percent, ci_lower_percent, "
            "ci_upper_percent, density_per_mm2 FROM patient_indices",
        )
    )
    assert isinstance(found, pl.DataFrame)
    table = truth.join(found, on=["patient_id", "marker"], how="left").sort("patient_id", "marker")
    columns = ["patient_id", "marker", "n_slides", "true_cells", "n_called", "true_index_percent"]
    return DemoReport(
        table=table.select(*columns, "index_percent", "ci_lower_percent", "ci_upper_percent").to_arrow(),
        next_steps=(
            "",
            "next, for instance:",
            f"  {command} index {results} --marker Ki67",
            f'  {command} sql {results} "SELECT patient_id FROM patient_indices'
            " WHERE marker = 'Ki67' AND index_percent > 30\"",
            f"  {command} status {results}",
            f"  {command} score YOUR_MANIFEST.csv YOUR_RESULTS --model YOUR_DEEPLIIF_MODEL_FOLDER",
        ),
    )
