"""Damage of every kind in results of a real run: found, told, moved out of the way, and healed by a rerun."""

import shutil
import sys

import pytest

from deepliif_ray import Execution, check, cli, connect, optimize, score, storage
from deepliif_ray.engine import staging
from deepliif_ray.engine.run.lease import Lease
from deepliif_ray.errors import ResultsError, ResultsInUseError
from deepliif_ray.synthetic import write_cohort
from deepliif_ray.tables.commit import bar
from deepliif_ray.tables.ledger import Ledger
from tests.few import few


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A manifest of two slides and their results."""
    folder = tmp_path_factory.mktemp("check")
    manifest = write_cohort(folder / "cohort", patients=1, side=300)
    score(str(manifest), str(folder / "results"), model="toy", execution=Execution(engine="local"))
    return manifest, folder / "results"


@pytest.fixture
def results(cohort, tmp_path):
    shutil.copytree(cohort[1], tmp_path / "results")
    return tmp_path / "results"


def cells(results):
    with connect(results) as connection:
        columns = "* EXCLUDE (attempt)"  # measured again it is another attempt
        return connection.execute(f"SELECT {columns} FROM cells ORDER BY slide_id, cell_id").fetchall()


def one(results, folder):
    return sorted((results / folder).rglob("*.parquet"))[0]


def flip(path, share=0.5):
    """Change one bit inside a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 16
    path.write_bytes(content)


DAMAGE = {
    "cells gone": lambda r: one(r, "cells").unlink(),
    "cells empty": lambda r: one(r, "cells").write_bytes(b""),
    "cells cut": lambda r: one(r, "cells").write_bytes(one(r, "cells").read_bytes()[:-9]),
    "cells flipped": lambda r: flip(one(r, "cells")),
    "cells of another slide": lambda r: shutil.copy(sorted(r.rglob("cells/*/*"))[1], one(r, "cells")),
    "record empty": lambda r: one(r, "slides").write_bytes(b""),
    "record cut": lambda r: one(r, "slides").write_bytes(one(r, "slides").read_bytes()[:-9]),
    "record flipped": lambda r: one(r, "slides").write_bytes(
        one(r, "slides").read_bytes().replace(b"breast", b"brfast", 1)
    ),
    "record's row flipped": lambda r: one(r, "slides").write_bytes(
        one(r, "slides").read_bytes().replace(b'"marker": "', b'"marker": !')
    ),
}


def test_sound_results_are_sound(cohort):
    report = check(str(cohort[1]))
    assert report.is_sound and report.findings == []
    assert report.checked["slides"] == report.checked["cells"] == 2


def test_a_name_barred_by_optimize_is_sound_and_stays(results):
    expected = cells(results)
    assert bar(str(results), "cells/marker=Ki67/late-x.parquet")
    report = check(str(results), repair=True)
    assert report.is_sound and report.findings == []
    optimize(str(results), drop_superseded=True)
    assert (results / "slides" / "late-x.parquet").exists()
    assert cells(results) == expected
    with connect(results) as connection:
        assert connection.execute("FROM damaged").fetchall() == []


def test_a_damaged_object_is_not_taken_for_a_bar(results):
    """It may be the record that names the cells."""
    record = one(results, "slides")
    record.write_bytes(record.read_bytes()[:-9])
    assert not bar(str(results), f"cells/marker=Ki67/{record.name}")


@pytest.mark.parametrize("damage", few(DAMAGE, 4))
def test_damage_is_found_moved_and_healed_by_a_rerun(cohort, results, damage):
    expected = cells(results)
    DAMAGE[damage](results)
    (found,) = (finding for finding in check(str(results)).findings if finding.is_wrong)
    assert found.kind == damage.split()[0].replace("record's", "record").replace("record", "slides")
    with connect(results) as connection:  # everything else works
        assert connection.execute("SELECT count(*) FROM slides").fetchall()[0][0] >= 1
    (mended,) = (finding for finding in check(str(results), repair=True).findings if finding.is_wrong)
    assert mended.mended is not None and mended.object == found.object
    summary = score(str(cohort[0]), str(results), model="toy", execution=Execution(engine="local"))
    assert (summary.scored, summary.skipped, summary.failed) == (1, 1, 0)
    assert check(str(results)).is_sound
    assert cells(results) == expected


def test_lost_cells_are_measured_again_without_any_repair(cohort, results):
    """The run itself sees that they are gone."""
    expected = cells(results)
    one(results, "cells").unlink()
    assert score(str(cohort[0]), str(results), model="toy", execution=Execution(engine="local")).scored == 1
    assert cells(results) == expected


def test_a_joined_object_that_is_lost_costs_its_slides(cohort, results):
    expected = cells(results)
    optimize(str(results), keep_minutes=0)
    assert check(str(results)).is_sound
    flip(one(results, "cells"))
    (found,) = check(str(results)).findings
    assert "checksum" in found.problem
    check(str(results), repair=True)
    score(str(cohort[0]), str(results), model="toy", execution=Execution(engine="local"))
    assert cells(results) == expected


def test_a_run_of_many_slides_joins_its_records(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("deepliif_ray.engine.score._JOIN_AT", 2)
    for scored in (2, 0):
        summary = score(str(cohort[0]), str(tmp_path / "r"), model="toy", execution=Execution(engine="local"))
        assert summary.scored == scored
        assert len(list((tmp_path / "r" / "slides").iterdir())) == 1
    assert check(str(tmp_path / "r")).is_sound
    assert cells(tmp_path / "r") == cells(cohort[1])


def test_what_is_left_over_is_told_and_nothing_is_wrong(results):
    staged, note = results / "_staging/a/b/plan.json", results / "_optimize/x.json"
    for path in (staged, note):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    report = check(str(results))
    assert report.is_sound
    assert {(f.kind, f.object) for f in report.findings} == {
        ("staging", "_staging/a"),
        ("note", "_optimize/x.json"),
    }
    check(str(results), repair=True)
    assert staged.exists() and not note.exists()


@pytest.mark.slow
def test_repair_is_refused_beside_a_run(results):
    with Lease(str(results), "run", dict), pytest.raises(ResultsInUseError):
        check(str(results), repair=True)


def test_results_that_are_not_there(tmp_path):
    for repair in (False, True):
        with pytest.raises(ResultsError, match="no results here"):
            check(str(tmp_path / "typo"), repair=repair)
    assert not (tmp_path / "typo").exists()


def run(*arguments) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["deepliif-ray", *(str(a) for a in arguments)])
        cli.main()
    return exit_.value.code or 0


def test_the_command_says_what_is_wrong(results, capsys, caplog):
    assert run("check", results) == 0
    one(results, "cells").unlink()
    assert run("check", results, "--format", "json") == 3
    assert "gone" in capsys.readouterr().out
    for command in (["sql", results, "SELECT count(*) FROM slides"], ["status", results], ["index", results]):
        caplog.clear()
        assert run(*command) == 0
        assert [record.message.count("damaged and passed over") for record in caplog.records] == [1]


def test_staged_blocks_that_a_loss_of_power_damaged_are_done_again(cohort, tmp_path, monkeypatch):
    """A run is stopped when all is staged; then what was not on disk yet is lost."""
    results = tmp_path / "results"
    with monkeypatch.context() as patch:
        patch.setattr(
            "deepliif_ray.engine.local.finalize", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            score(str(cohort[0]), str(results), model="toy", execution=Execution(engine="local"))
    blocks = list(results.rglob("_staging/*/*/*.arrow"))
    assert blocks
    for path in [*blocks, *results.rglob("_staging/*/*/plan.json")]:
        path.write_bytes(path.read_bytes()[:100] if path.suffix == ".arrow" else b"")
    assert staging.staged_ordinals(str(blocks[0].parent)) == set()
    assert score(str(cohort[0]), str(results), model="toy", execution=Execution(engine="local")).failed == 0
    assert cells(results) == cells(cohort[1])
    assert Ledger(str(results)).failures().num_rows == 0


def test_records_and_cells_are_on_disk_before_they_count(tmp_path, monkeypatch):
    """File and folder are synced, the file first; what is staged is not waited for."""
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    storage.write_bytes(str(tmp_path / "a" / "b" / "x"), b"1", durable=False)
    assert synced == []
    storage.write_bytes(str(tmp_path / "c" / "d" / "x"), b"1")
    assert len(synced) == 4  # two new folders in those above them, the file, its name
    storage.write_bytes(str(tmp_path / "c" / "d" / "x"), b"2")
    assert len(synced) == 6
