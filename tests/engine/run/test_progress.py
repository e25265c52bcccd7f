"""What a run counts: its snapshot, and where its time went."""

import json

import pyarrow as pa

from deepliif_ray import Execution, connect, score
from deepliif_ray.console import describe, where_time_went
from deepliif_ray.engine.run.progress import STEPS, Progress
from deepliif_ray.synthetic import write_cohort
from deepliif_ray.tables.schema import table_schema


class Recorder:
    """A meter that keeps what it is told."""

    def __init__(self):
        self.seconds, self.counts, self.reasons, self.last = {}, {}, [], None

    def spent(self, step, seconds):
        self.seconds[step] = self.seconds.get(step, 0) + seconds

    def tiles(self, outcome, count):
        self.counts[outcome] = self.counts.get(outcome, 0) + count

    def failed(self, reason):
        self.reasons.append(reason)

    def slides(self, done, left):
        self.last = (done, left)


def test_a_run_tells_where_its_time_went(tmp_path):
    meter, seen = Recorder(), []
    manifest = write_cohort(tmp_path / "cohort", patients=1, side=700)
    with manifest.open("a") as file:
        file.write("gone,P9,Ki67,gone.svs,x\n")

    def watch(progress):
        progress.meter = meter
        seen.append(progress.snapshot())

    summary = score(
        str(manifest), str(tmp_path / "r"), model="stain", watch=watch, execution=Execution(engine="local")
    )
    with connect(tmp_path / "r") as connection:
        timings, n_tiles = connection.execute("SELECT timings, n_tiles FROM runs").fetchall()[0]
        slides = connection.execute(
            "SELECT sum(n_tiles_inferred), sum(n_tiles_empty) FROM slides"
        ).fetchall()[0]
    assert {name.removesuffix("_s") for name in timings} == set(STEPS)
    assert timings == {f"{step}_s": seconds for step, seconds in summary.spent.items()}
    assert all(timings[f"{step}_s"] > 0 for step in STEPS if step != "wait")
    assert sum(timings.values()) <= summary.seconds * 1.01  # one worker
    assert meter.counts.get("inferred", 0) == slides[0] and meter.counts.get("empty", 0) == slides[1]
    assert (meter.reasons, meter.last) == (["missing"], (2, 0))
    assert seen[-1]["tiles_done"] == n_tiles and seen[-1]["done"] == 3
    assert seen[-1]["reasons"] == {"missing": 1}
    assert seen[-1]["newest_failures"][0]["slide_id"] == "gone"
    assert json.loads(json.dumps(seen[-1])) == seen[-1]


def test_the_steps_are_those_of_the_schema():
    members = [member.name for member in table_schema("runs").field("timings").type]
    assert members == [f"{step}_s" for step in STEPS]
    assert pa.types.is_struct(table_schema("runs").field("timings").type)


def test_failures_are_kept_short():
    progress = Progress(slides=100)
    for number in range(20):
        progress.fail(f"slide {number}" + "x" * 10_000, "corrupt", "y" * 10_000)
    assert progress.failed == 20 and progress.reasons["corrupt"] == 20
    assert len(json.dumps(progress.snapshot())) < 10_000
    assert progress.snapshot()["newest_failures"][-1]["slide_id"].startswith("slide 19")


def test_shares():
    assert where_time_went(dict.fromkeys(STEPS, 0.0)) is None
    spent = {"read": 12.0, "infer": 71.0, "measure": 8.0, "wait": 9.0}
    assert where_time_went(spent) == "time: infer 71 %, read 12 %, measure 8 %; the workers waited 9 %"


def test_while_cells_are_joined_no_time_is_promised():
    progress = Progress(slides=3, skipped=1, planned=2, tiles_planned=10, tiles_done=9)
    assert progress.seconds_left is not None and " left" in describe(progress)
    progress.add(tiles_done=1)
    assert progress.seconds_left is None
    assert describe(progress).endswith("0 cells · joining cells")
    assert progress.snapshot()["is_joining"]
    progress.add(scored=2, cells=7)
    assert not progress.is_joining and describe(progress).endswith("7 cells")


def test_slides_that_are_not_planned_yet_are_more_tiles_to_come():
    progress = Progress(slides=3, planned=2, tiles_planned=10, tiles_done=10)
    assert not progress.is_joining and progress.seconds_left > 0
