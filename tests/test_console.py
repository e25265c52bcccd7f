"""Tables as they are written: the same values in every format, nothing lost or made up."""

import csv
import io
import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from deepliif_ray.console import Format, chosen_format, show
from deepliif_ray.errors import ConfigError, QueryError, StorageError
from deepliif_ray.query import ask
from tests.query import fake_results as fake

AWKWARD = """
SELECT 9007199254740993::BIGINT AS big, 170141183460469231731687303715884105727::HUGEINT AS huge,
  sum(3) AS total, 1.50::DECIMAL(5, 2) AS exact, 0.12345678901234567890::DECIMAL(30, 20) AS long_,
  'nan'::DOUBLE AS no, 'inf'::DOUBLE AS up, '-inf'::DOUBLE AS down, NULL AS nothing, '' AS empty,
  ' x ' AS spaced, 'a "b", c' || chr(10) || 'd' AS text_, '\\x00\\xFF'::BLOB AS bytes, [1, NULL] AS list_,
  {'a': 'nan'::DOUBLE, 't': TIMESTAMP '2026-01-02 03:04:05'} AS nested, MAP {'k': 1} AS map_, true AS yes,
  TIMESTAMP '2026-01-02 03:04:05.5' AS moment, DATE '2026-01-02' AS day, INTERVAL 1 DAY AS span,
  1 AS twice, 2 AS twice
"""
PLAIN = {
    "big": 9007199254740993,
    "huge": 170141183460469231731687303715884105727,
    "total": 3,
    "exact": 1.5,
    "long_": "0.12345678901234567890",
    "no": "NaN",
    "up": "Infinity",
    "down": "-Infinity",
    "nothing": None,
    "empty": "",
    "spaced": " x ",
    "text_": 'a "b", c\nd',
    "bytes": "00ff",
    "list_": [1, None],
    "nested": {"a": "NaN", "t": "2026-01-02T03:04:05Z"},
    "map_": {"k": 1},
    "yes": True,
    "moment": "2026-01-02T03:04:05.500000Z",
    "day": "2026-01-02",
    "span": "P0M1DT0S",
    "twice": 1,
    "twice_1": 2,
}


@pytest.fixture
def root(tmp_path):
    fake.commit(str(tmp_path / "r"), "a", [fake.cell()])
    return str(tmp_path / "r")


def as_text(value):
    """Return a value of JSON as a field of CSV holds it."""
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value)
    return "" if value is None else str(value)


def test_awkward_values_in_every_format(root, tmp_path):
    table = ask(root, AWKWARD)
    show(table, None, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == [PLAIN]
    show(table, None, tmp_path / "a.csv")
    (row,) = csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text(), newline=""))
    assert row == {name: as_text(value) for name, value in PLAIN.items()}
    assert ',"",' in (tmp_path / "a.csv").read_text()  # an empty text, which is not null
    with duckdb.connect() as connection:  # somebody else's reader agrees
        read = f"SELECT big, yes, text_ FROM read_csv('{tmp_path}/a.csv')"
        assert connection.sql(read).fetchall() == [(PLAIN["big"], True, PLAIN["text_"])]
    show(table.drop_columns("span"), None, tmp_path / "a.parquet")
    assert repr(pq.read_table(tmp_path / "a.parquet").to_pylist()) == repr(
        table.drop_columns("span").to_pylist()
    )
    with pytest.raises(ConfigError, match="cast"):
        show(table, None, tmp_path / "a.parquet")
    show(table, None, tmp_path / "a.txt")
    assert "9,007,199,254,740,993" in (tmp_path / "a.txt").read_text()


@pytest.mark.parametrize("kind", [f"{2**128 - 1}::UHUGEINT", "BIT '101'", "[BIT '1']"])
def test_what_arrow_would_garble_is_refused(root, kind):
    with pytest.raises(QueryError, match="cast it to VARCHAR"):
        ask(root, f"SELECT {kind} AS a")


@pytest.mark.parametrize(
    ("form", "name", "chosen"),
    [
        (None, "a.csv", Format.CSV),
        (None, "A.JSON", Format.JSON),
        (None, "a.parquet", Format.PARQUET),
        (None, "a.txt", Format.TABLE),
        (Format.CSV, "a.csv", Format.CSV),
        (Format.CSV, "a.tsv", Format.CSV),
        (Format.JSON, "noname", Format.JSON),
    ],
)
def test_format_follows_the_suffix(tmp_path, form, name, chosen):
    assert chosen_format(form, tmp_path / name) is chosen


@pytest.mark.parametrize(
    ("form", "name"),
    [(None, "a.tsv"), (None, "a"), (Format.JSON, "a.csv"), (None, "no/folder/a.csv"), (None, "")],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path, form, name):
    with pytest.raises(ConfigError):
        chosen_format(form, tmp_path / name)


def test_a_full_disk_is_told(root):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(StorageError, match="cannot be written"):
        show(ask(root, "SELECT 1 AS a"), Format.CSV, full)
