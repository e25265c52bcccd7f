"""Runs, `optimize` and readers on a store that does what stores do at their worst: what must hold, holds.

The real lease, commits, joining, sweeping and reading run here; processes stand still for days, die, and have
clocks of their own, while requests arrive late, twice, or without an answer, and listings lag.
"""

import uuid
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deepliif_ray import optimize
from deepliif_ray.engine.run import lease as lease_module
from deepliif_ray.engine.run.lease import Lease, fence
from deepliif_ray.errors import DeepliifRayError, LeaseLostError
from deepliif_ray.storage import client
from deepliif_ray.tables import commit, joining, ledger, records, retire
from deepliif_ray.tables import optimize as optimize_module
from deepliif_ray.tables.ledger import Ledger, joined_rows
from deepliif_ray.tables.schema import table_schema
from tests.engine.run import late_store
from tests.engine.run.late_store import FAULTS, Actor, World, pause
from tests.query import fake_results as fake

ROOT = "late://results"
SLIDES = ("a", "b")
KEEP_S = 3600.0
WAITS = (1.0, 40.0, 600.0, KEEP_S + 60, 25 * 3600.0)


class Serial:
    """A pool of threads without threads."""

    def __init__(self, *_: object) -> None: ...
    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...
    def map(self, call, *items):
        return [call(*item) for item in zip(*items, strict=True)]


class Results(RuleBasedStateMachine):
    """One results location and whoever works on it."""

    def __init__(self) -> None:
        super().__init__()
        late_store.WORLD = self.world = World()
        self.patch = pytest.MonkeyPatch()
        for module in (records, joining, optimize_module, retire):
            self.patch.setattr(module, "ThreadPoolExecutor", Serial)
        for module in (client, lease_module):
            time = SimpleNamespace(sleep=pause, monotonic=lambda: 0.0)
            self.patch.setattr(module, "time", time)
        clock = SimpleNamespace(
            now=lambda _: self.world.now(), fromisoformat=lease_module.datetime.fromisoformat
        )
        self.patch.setattr(retire, "datetime", clock)
        for name in (
            "_slides",
            "_failures",
            "_runs",
        ):  # all ledgers of a process share a lock in Python 3.11,
            lock = nullcontext()  # and one actor would wait for another that stands still
            self.patch.setattr(Ledger.__dict__[name], "lock", lock, raising=False)
        self.patch.setattr(lease_module, "STALE_S", 3.0)
        self.actors: list[Actor] = []
        self.epochs: dict[int, str] = {}
        self.best: dict[str, int] = {}
        self.snapshots: list[tuple[float, list[str]]] = []
        self.number = 0
        self.checked: dict[str, object] = {}

    # What processes do

    def run(self, name: str, skew: float, take_over: bool) -> None:
        lease = Lease(ROOT, name, dict, take_over=take_over)
        lease.take()
        assert lease.epoch not in self.epochs, "two runs hold the same epoch"
        self.epochs[lease.epoch] = name
        commit.write_run(ROOT, fake_run(name, lease.epoch, self.world.now()))
        for slide in SLIDES:
            try:
                self.score(lease.epoch, name, slide, skew)
            except LeaseLostError:
                raise
            except DeepliifRayError:
                continue  # a slide that failed
            lease.beat()
            lease.check()
        lease.release()

    def score(self, epoch: int, name: str, slide: str, skew: float) -> None:
        attempt = uuid.uuid5(uuid.NAMESPACE_OID, f"{name}{slide}").hex[:8]
        path = commit.cells_path(slide, "Ki67", attempt)
        cells = [
            {"slide_id": slide, "patient_id": "P", "attempt": attempt, **fake.cell(n)}
            for n in range(1 + epoch % 3)
        ]
        place = commit.write_cells(ROOT, path, [pa.Table.from_pylist(cells, schema=table_schema("cells"))])
        at = self.world.now() + timedelta(seconds=skew)
        record = fake_slide(slide, attempt, place, len(cells)) | {"epoch": epoch, "committed_at": at}
        fence(ROOT, epoch, name)
        commit.commit_slide(ROOT, record)

    def read(self) -> None:
        begun = self.world.clock
        slides = Ledger(ROOT, must_exist=False).slides()
        self.snapshots.append((begun, slides.column("cells_path").to_pylist()))

    # What may happen

    def start(self, kind: str, body) -> None:
        self.number += 1
        self.actors.append(Actor(f"{kind}{self.number}", partial(body)))

    @precondition(lambda self: len(self.alive("run")) < 3)
    @rule(skew=st.sampled_from([0.0, 7200.0, -7200.0]), take_over=st.booleans())
    def a_run_starts(self, skew, take_over):
        name = f"run{self.number + 1}"
        self.start("run", lambda: self.run(name, skew, take_over))

    @precondition(lambda self: self.best and len(self.alive("optimize")) < 2)
    @rule(drop=st.booleans(), size=st.sampled_from([1, 2**27]))
    def an_optimize_starts(self, drop, size):
        self.start("optimize", lambda: optimize(ROOT, drop_superseded=drop, target_bytes=size))

    @precondition(lambda self: self.best)
    @rule()
    def somebody_reads(self):
        self.read()

    @precondition(lambda self: self.alive())
    @rule(
        which=st.integers(0, 9), most=st.integers(1, 40), fault=st.sampled_from(FAULTS), at=st.integers(0, 9)
    )
    def one_goes_on(self, which, most, fault, at):
        actor = self.alive()[which % len(self.alive())]
        for step in range(most):
            actor.go(fault if step == at else "none")

    @precondition(lambda self: self.alive())
    @rule(which=st.integers(0, 9), after=st.sampled_from(["slides/", "cells/", "_optimize/", "_lease/"]))
    def one_goes_on_until_it_has_written(self, which, after):
        actor = self.alive()[which % len(self.alive())]
        before = self.names(after)
        for _ in range(60):
            if actor.ended or self.names(after) != before:
                break
            actor.go()

    @precondition(lambda self: self.alive("run"))
    @rule(which=st.integers(0, 9))
    def a_run_goes_on_until_it_has_looked_for_its_cells(self, which):
        """Its next request is the commit."""
        actor = self.alive("run")[which % len(self.alive("run"))]
        before = self.world.looks
        for _ in range(60):
            if actor.ended or self.world.looks != before:
                break
            actor.go()

    @precondition(lambda self: self.alive())
    @rule(which=st.integers(0, 9))
    def one_goes_on_to_its_end(self, which):
        actor = self.alive()[which % len(self.alive())]
        for _ in range(400):
            actor.go()

    @precondition(lambda self: self.alive())
    @rule(which=st.integers(0, 9))
    def one_is_killed(self, which):
        self.alive()[which % len(self.alive())].kill()

    @precondition(lambda self: self.world.late)
    @rule(which=st.integers(0, 9))
    def something_arrives(self, which):
        self.world.late.pop(which % len(self.world.late))()

    @rule(seconds=st.sampled_from(WAITS))
    def time_goes_by(self, seconds):
        self.world.clock += seconds

    @precondition(lambda self: self.best)
    @rule(drop=st.booleans(), reads=st.booleans())
    def a_day_goes_by_with_an_optimize_at_each_end(self, drop, reads):
        """What stands still meanwhile finds the cells gone that nobody named."""
        for seconds in (25 * 3600.0, KEEP_S + 60):
            self.world.clock += seconds
            if reads:
                self.read()
            optimize(ROOT, drop_superseded=drop)

    # What must hold

    @invariant()
    def every_record_has_its_cells_and_none_is_replaced_by_an_older_one(self):
        for actor in self.actors:
            if actor.error is not None and not isinstance(actor.error, DeepliifRayError):
                raise actor.error
        there = {
            name: data for name, data in self.world.objects.items() if name[8:14] in ("slides", "cells/")
        }
        if there == self.checked:
            return
        self.checked = there
        for row in Ledger(ROOT, must_exist=False).slides().to_pylist():
            slide, path = row["slide_id"], row["cells_path"]
            assert row["epoch"] >= self.best.get(slide, 0), f"{slide}: an older generation came back"
            self.best[slide] = row["epoch"]
            object_ = self.world.objects.get(f"results/{path}")
            assert object_ is not None, f"{slide}: its cells are gone: {path}"
            cells = pq.read_table(pa.BufferReader(object_[0])).to_pylist()
            mine = [cell for cell in cells if cell["slide_id"] == slide]
            assert len(mine) == row["n_cells"] == 1 + row["epoch"] % 3
            assert joined_rows(path) is not None or len(cells) == len(mine)

    @invariant()
    def readers_of_before_find_their_cells(self):
        self.snapshots = [kept for kept in self.snapshots if self.world.clock - kept[0] < KEEP_S]
        for _, paths in self.snapshots:
            for path in paths:
                assert f"results/{path}" in self.world.objects, f"gone under a reader: {path}"

    def teardown(self) -> None:
        try:
            self.end_well()
        finally:
            for actor in self.actors:
                actor.kill()
            self.patch.undo()

    def end_well(self) -> None:
        """Let a last run come, then all that is late: it gets the lease, and its slides count."""
        for actor in self.alive("run"):
            if actor.name not in self.epochs.values():
                actor.kill()
        self.run("last", 0.0, take_over=True)
        for actor in self.alive():
            for _ in range(400):
                actor.go()
        for land in self.world.late:
            land()
        self.every_record_has_its_cells_and_none_is_replaced_by_an_older_one()
        newest = max(self.epochs)
        assert self.epochs[newest] == "last"
        assert self.best == dict.fromkeys(SLIDES, newest), "the last run does not count"

    def alive(self, kind: str = "") -> list[Actor]:
        return [actor for actor in self.actors if not actor.ended and actor.name.startswith(kind)]

    def names(self, folder: str) -> set[str]:
        return {name for name in self.world.objects if name.startswith(f"results/{folder}")}


def fake_slide(slide: str, attempt: str, place: dict[str, object], n_cells: int) -> dict[str, object]:
    return SLIDE | place | {"slide_id": slide, "attempt": attempt, "n_cells": n_cells}


def fake_run(name: str, epoch: int, now) -> dict[str, object]:
    return RUN | {"run_id": name, "epoch": epoch, "started_at": now}


SLIDE = fake.commit("memory://model", "x", [])
RUN = {
    "manifest_uri": "m.csv",
    "results_uri": ROOT,
    "model_uri": "stain",
    "model_digest": "m1",
    "config": "{}",
    "config_fingerprint": "c1",
    "software_version": "0",
    "engine": "local",
    "status": "running",
}
QUICK = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)


def test_what_must_hold_holds():
    run_state_machine_as_test(Results, settings=QUICK)


def by_time(table, moment):
    """Return the newest of each slide by time alone, as version 0.1 did."""
    rows = sorted(table.to_pylist(), key=lambda row: (row[moment], row["attempt"]))
    return pa.Table.from_pylist(list({row["slide_id"]: row for row in rows}.values()), schema=table.schema)


def ordered_by_time(patch):
    patch.setattr(ledger, "newest", by_time)


def beats_in_place(patch):
    """The lease is written over, whoever has it."""
    patch.setattr(
        lease_module.storage, "create_bytes", lambda *a: lease_module.storage.write_bytes(*a) or True
    )


def removed_unbarred(patch):
    patch.setattr(retire, "bar", lambda *_: True)


def joined_the_other_way(patch):
    """Of two records of one attempt the one counts whose cells were joined less often."""
    rank = ledger.cells_rank
    patch.setattr(ledger, "cells_rank", lambda path: (-rank(path)[0], path or ""))


def noted_before_its_records(patch):
    """`optimize` notes what is not needed before it writes the records that do without it.

    Between those records and the removal of the older ones it would make no difference: who reads then is
    shown the joined cells, which come after those of which they were made.
    """
    create = joining.create_table

    def note_and_create(url, name, table):
        paths = set(records.read_records(ROOT, name).table.column("cells_path").to_pylist())
        retire.note(ROOT, paths - set(table.column("cells_path").to_pylist()))
        return create(url, name, table)

    patch.setattr(joining, "create_table", note_and_create)


def a_run_ends(model):
    model.a_run_starts(0.0, take_over=True)
    model.one_goes_on_to_its_end(len(model.alive()) - 1)


def stands_before_its_commit(model):
    """A run has looked for its cells; a day later it commits them."""
    model.a_run_starts(0.0, take_over=True)
    model.a_run_goes_on_until_it_has_looked_for_its_cells(0)
    model.a_day_goes_by_with_an_optimize_at_each_end(drop=False, reads=False)
    model.one_goes_on(0, 3, "none", 0)


def goes_on_to_its_records(model, size):
    model.an_optimize_starts(drop=False, size=size)
    while "slides/joined" not in model.alive()[0].waits_for:
        model.alive()[0].go()


def stands_while_somebody_reads(model):
    """An `optimize` has joined cells; an hour later somebody reads, and then it writes its records."""
    a_run_ends(model)
    goes_on_to_its_records(model, size=2**27)
    model.time_goes_by(KEEP_S + 60)
    model.read()
    model.one_goes_on_to_its_end(0)


def stands_before_its_records(model):
    """An `optimize` has read records, and writes them again after another has moved their cells."""
    a_run_ends(model)
    goes_on_to_its_records(model, size=1)
    for _ in range(2):
        model.a_day_goes_by_with_an_optimize_at_each_end(drop=False, reads=False)
    model.one_goes_on(0, 2, "none", 9)


def taken_over(model):
    """Two runs, the first of which has a clock that is ahead, and stands still meanwhile."""
    model.a_run_starts(7200.0, take_over=False)
    model.one_goes_on_until_it_has_written(0, "slides/")
    a_run_ends(model)


FAULTY = [
    (ordered_by_time, taken_over),
    (removed_unbarred, stands_before_its_commit),
    (joined_the_other_way, stands_before_its_records),
    (noted_before_its_records, stands_while_somebody_reads),
]


def play(story):
    model = Results()
    try:
        story(model)
        model.every_record_has_its_cells_and_none_is_replaced_by_an_older_one()
        model.readers_of_before_find_their_cells()
    finally:
        model.teardown()


@pytest.mark.parametrize("story", [story for _, story in FAULTY], ids=lambda story: story.__name__)
def test_stories_in_which_it_would_be_lost_end_well(story):
    play(story)


@pytest.mark.parametrize(("fault", "story"), FAULTY, ids=lambda what: what.__name__)
def test_with_a_fault_the_story_ends_badly(fault, story, monkeypatch):
    """Each fault was in this code, or would be without what it does against it."""
    fault(monkeypatch)
    with pytest.raises(AssertionError, match=r"came back|are gone|gone under a reader|does not count"):
        play(story)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_finds_a_lease_that_is_written_over(monkeypatch):
    beats_in_place(monkeypatch)
    more = settings(QUICK, max_examples=400, stateful_step_count=50, phases=[Phase.generate])
    with pytest.raises(AssertionError) as found:
        run_state_machine_as_test(Results, settings=more)
    print(found.value)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_what_must_hold_holds_for_long():
    run_state_machine_as_test(
        Results, settings=settings(QUICK, max_examples=2000, stateful_step_count=50, derandomize=False)
    )
