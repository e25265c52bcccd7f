"""Objects of older versions beside new ones. ``data/v1`` was written by the software of version 1."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from deepliif_ray import optimize, storage
from deepliif_ray.errors import ResultsError
from deepliif_ray.query import connect
from deepliif_ray.tables.commit import write_table
from deepliif_ray.tables.ledger import Ledger, joined_name
from deepliif_ray.tables.schema import column_names, schema_version, table_schema
from tests.few import few
from tests.query import fake_results as fake

OLD = Path(__file__).parent / "data" / "v1"
OLD_SLIDE, OLD_ATTEMPT = "s00002", "6e494e78b84c4f77"
OLD_CELLS = (4, 2181)  # as the software of then answered: how many, and their area


@pytest.fixture(params=few(["local", "needs a root=", "memory"], 2))
def root(request, tmp_path):
    """Results of version 1 with a slide of this version beside it."""
    root = str(tmp_path / request.param) if request.param != "memory" else f"memory://{tmp_path.name}/old"
    for path in OLD.rglob("*.parquet"):
        storage.write_bytes(storage.join(root, path.relative_to(OLD).as_posix()), path.read_bytes())
    fake.commit(root, "new", [fake.cell(k, area_px=50) for k in range(3)], attempt="now")
    return root


def found(root, **options):
    with connect(root, **options) as connection:
        assert connection.sql("FROM cells LIMIT 0").columns == list(column_names("cells"))
        return connection.sql(
            "SELECT slide_id, attempt, count(*), sum(area_px)::INT FROM cells GROUP BY ALL ORDER BY ALL DESC"
        ).fetchall()


EXPECTED = [(OLD_SLIDE, OLD_ATTEMPT, *OLD_CELLS), ("new", "now", 3, 150)]


@pytest.mark.parametrize("sandbox", [False, True])
def test_old_cells_are_read_beside_new_ones(root, sandbox):
    assert found(root, sandbox=sandbox) == EXPECTED
    with connect(root, sandbox=sandbox) as connection:
        assert connection.execute("SELECT count(*) FROM called_cells").fetchall()[0][0] >= 3
        kinds = dict(connection.execute("SELECT column_name, column_type FROM (DESCRIBE cells)").fetchall())
        assert kinds["attempt"] == "VARCHAR"
        # The join that the data dictionary shows loses no cell of an older version.
        joined = "SELECT count(*) FROM cells JOIN slides USING (slide_id, attempt)"
        assert connection.execute(joined).fetchall() == [(7,)]


def test_old_cells_alone(tmp_path):
    shutil.copytree(OLD, tmp_path / "old")
    assert found(str(tmp_path / "old")) == EXPECTED[:1]


def test_old_and_new_cells_are_joined(root):
    summary = optimize(root, keep_minutes=0)
    assert (summary.joined_cells, summary.damaged) == (2, ())
    assert found(root) == EXPECTED
    (version,) = set(Ledger(root).slides().column("cells_version").to_pylist())
    assert version == schema_version("cells")


@pytest.mark.parametrize("others", [0, 2])
def test_old_joined_objects_beside_new_records(root, others):
    """Records are rewritten in this version while large cells objects stay; some rows may not count."""
    (old,) = [row for row in Ledger(root).slides().to_pylist() if row["slide_id"] == OLD_SLIDE]
    content = storage.read_bytes(storage.join(root, old["cells_path"]))
    path = f"cells/marker=Ki67/{joined_name(OLD_CELLS[0] + others, 1, 'x')}"
    storage.write_bytes(storage.join(root, path), content)
    record = old | {"cells_path": path, "attributes": list(old["attributes"])}
    table = pa.Table.from_pylist([record], schema=table_schema("slides"))
    (before,) = (url for url in storage.list_files(storage.join(root, "slides")) if OLD_SLIDE in url)
    storage.remove(before)
    write_table(storage.join(root, "slides/joined-x.parquet"), "slides", table)
    assert found(root) == EXPECTED


def test_newer_cells_are_refused_by_name(root):
    fake.commit(root, "newer", [fake.cell()], cells_version=schema_version("cells") + 1)
    with pytest.raises(ResultsError, match="newer deepliif_ray wrote its cells"):
        connect(root)
