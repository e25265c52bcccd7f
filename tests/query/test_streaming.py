"""Large answers come in parts of the size that was asked for, and as the views tell them."""

import pyarrow as pa
import pytest

from deepliif_ray.errors import QueryError, ResultsError
from deepliif_ray.query import streaming as module
from deepliif_ray.query.streaming import streaming
from tests.query import fake_results as fake


@pytest.fixture
def root(tmp_path):
    fake.commit(str(tmp_path), "it's", [fake.cell(0), fake.cell(1, area_px=3)])
    return str(tmp_path)


def test_parts_have_the_rows_that_were_asked_for(root):
    with streaming(root) as stream:
        parts = list(stream.batches("SELECT range AS n FROM range(?)", [10_007], 2_500))
        assert [part.num_rows for part in parts] == [2500] * 4 + [7]
        assert pa.concat_tables(parts)["n"].to_pylist() == list(range(10_007))
        assert [part.num_rows for part in stream.batches("FROM range(6)", [], 3)] == [3, 3]
        assert not list(stream.batches("FROM range(0)", [], 3))
        cells = list(stream.batches("SELECT cell_id FROM cells WHERE slide_id = ? ORDER BY 1", ["it's"], 1))
        assert [part["cell_id"].to_pylist() for part in cells] == [[0], [1]]


def test_tables_can_be_given(root):
    with streaming(root) as stream:
        stream.give("wanted", pa.table({"cell_id": [1]}))
        found = stream.table("SELECT area_px FROM cells SEMI JOIN wanted USING (cell_id)")
        assert found["area_px"].to_pylist() == [3]


def test_what_is_sorted_goes_to_disk(root, monkeypatch):
    monkeypatch.setattr(module, "MEMORY", "200MB")
    much = "SELECT hash(range) AS n, repeat('x', 300) || range AS much FROM range(1_000_000) ORDER BY n"
    with streaming(root) as stream:
        assert sum(part.num_rows for part in stream.batches(much, [], 50_000)) == 1_000_000


def test_trouble_names_the_results(root, tmp_path):
    with streaming(root) as stream:
        for ask in (stream.table, lambda query: list(stream.batches(query, [], 5))):
            with pytest.raises(QueryError, match=tmp_path.name):
                ask("FROM nowhere")
            with pytest.raises(QueryError, match="mistaken"):
                ask("SELECT error('mistaken') FROM range(3)")
    with pytest.raises(ResultsError), streaming(str(tmp_path / "typo")):
        pass
