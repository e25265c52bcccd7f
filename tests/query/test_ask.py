"""Questions that are answered, and statements that are refused because they would write."""

import pytest

from deepliif_ray.errors import QueryError
from deepliif_ray.query import ask, connect
from tests.few import few
from tests.query import fake_results as fake


@pytest.fixture
def root(tmp_path):
    fake.commit(str(tmp_path), "a", [fake.cell(0), fake.cell(1)])
    return str(tmp_path)


WRITING = [
    "DELETE FROM slides",
    "/* all */ DELETE FROM stored.slides",
    "UPDATE slides SET patient_id = 'x'",
    "INSERT INTO slides SELECT * FROM slides",
    "TRUNCATE stored.slides",
    "WITH old AS (SELECT 1) DELETE FROM stored.slides",
    "WITH gone AS (DELETE FROM stored.slides RETURNING *) SELECT * FROM gone",
    "EXPLAIN ANALYZE WITH gone AS (DELETE FROM stored.slides RETURNING *) SELECT * FROM gone",
    "EXPLAIN ANALYZE DELETE FROM stored.slides",
    "EXPLAIN /* x */ ANALYZE -- y\n DELETE FROM stored.slides",
    "EXPLAIN (ANALYZE, FORMAT json) COPY slides TO '{file}'",
    "EXPLAIN ANALYZE COPY slides TO '{file}'",
    "COPY slides TO '{file}'",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE OR REPLACE VIEW slides AS SELECT 1 AS slide_id",
    "DROP VIEW slides",
    "ALTER TABLE stored.slides DROP COLUMN mpp",
    "MERGE INTO stored.slides USING slides AS s ON true WHEN MATCHED THEN DELETE",
    "SET threads = 1",
    "RESET threads",
    "PRAGMA threads = 1",
    "ATTACH '{file}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CALL enable_logging()",
    "EXPORT DATABASE '{file}'",
    "PREPARE q AS SELECT 1",
    "BEGIN",
    "CREATE MACRO one() AS 1",
    "SELECT 1; DELETE FROM slides",
    "SELECT 1; SELECT 2",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("query", few(WRITING, 16))
def test_what_would_write_is_refused(root, tmp_path, query):
    target = tmp_path / "written"
    with pytest.raises(QueryError):
        ask(root, query.format(file=target))
    assert not target.exists()


@pytest.mark.parametrize("query", WRITING[:7:3])
def test_the_sandbox_refuses_too(root, query):
    with pytest.raises(QueryError):
        ask(root, query, sandbox=True)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM cells;",
        "FROM slides",
        "VALUES (1)",
        "DESCRIBE slides",
        "SHOW TABLES",
        "SUMMARIZE slides",
        "WITH s AS (FROM slides) FROM s",
        "EXPLAIN SELECT 1",
        "explain analyze FROM cells",
        "PIVOT cells ON area_px USING count(*)",
        "-- a comment; with a semicolon\nSELECT 'DELETE FROM slides'",
    ],
)
def test_what_reads_is_answered(root, query):
    assert ask(root, query).num_rows >= 1


def test_views_of_results_cannot_be_written_to_but_tables_made(root):
    with connect(root) as connection:
        for query in ("DELETE FROM slides", "DELETE FROM failures", "INSERT INTO runs SELECT * FROM runs"):
            with pytest.raises(Exception, match=r"base table|not an? table"):
                connection.execute(query)
        connection.execute("CREATE TABLE mine AS FROM slides")
        assert connection.execute("SELECT count(*) FROM mine").fetchall() == [(1,)]
