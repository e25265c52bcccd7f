"""Intervals in SQL: Student's t, effective numbers and clustered ends, against Python and by hand."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from deepliif_ray.errors import QueryError
from deepliif_ray.query import ask, connect, views
from tests.query import fake_results as fake
from tests.scoring import clustered
from tests.scoring.wilson import wilson

FILE = Path(views.__file__).parent / "sql" / "intervals.sql"
SUMS = ("n_blocks", "block_xx", "block_xn", "block_nn", "window_xx", "window_xn", "window_nn")


@pytest.fixture(scope="module")
def sql():
    connection = duckdb.connect()
    connection.execute(FILE.read_text())
    return connection


def value(sql, expression, *parameters):
    return sql.execute(f"SELECT {expression}", parameters).fetchall()[0][0]


def effective(sql, positive, total, sums, slides=None):
    """The effective number in SQL, with HUGEINT sums as DuckDB's sum gives them."""
    numbers = [positive, total, *sums, *(slides or ())]
    marks = ", ".join(["?::BIGINT"] * 3 + ["?::HUGEINT"] * (len(numbers) - 3))
    return value(sql, f"{'patient_' if slides else ''}effective_cells({marks})", *numbers)


def ends(sql, positive, total, number):
    select = (
        "[clustered_lower_percent(?::BIGINT, ?::BIGINT, ?), clustered_upper_percent(?::BIGINT, ?::BIGINT, ?)]"
    )
    return value(sql, select, positive, total, number, positive, total, number)


def test_student_t_agrees_with_scipy(sql):
    found = sql.execute("SELECT df, student_t(df) FROM range(1, 2001) AS r(df)").fetchall()
    df, ours = np.array(found).T
    assert np.abs(ours / t.ppf(0.975, df) - 1).max() < 1e-5
    assert value(sql, "student_t(1000000000)") == pytest.approx(clustered.Z, rel=1e-8)
    assert [value(sql, f"student_t({df})") for df in ("0", "-1", "NULL")] == [None] * 3


def test_by_hand(sql):
    # Two blocks side by side, 10 of 100 and 30 of 100 positive: p = 0.2, residuals -10 and 10. Windows: two
    # that hold the left block alone, two the right, two both, which cancel: 2·100 + 2·100. So blocks have
    # 200, windows 400 / 2 - 200 = 0; the variance is 200 / 200² · (1 + 5/2) = 0.0175, the binomial 0.16 / 200
    # = 0.0008.
    number = effective(
        sql, 40, 200, (2, 10**2 + 30**2, 4000, 20000, 2 * 100 + 2 * 900 + 2 * 1600, 24000, 120000)
    )
    assert number == pytest.approx(0.16 / 0.0175 * (1.959964 / 12.706205) ** 2, rel=1e-6)
    # Two slides: between them 2 · 200 / 200² = 0.01, also one degree of freedom; the blocks say less.
    slides = (2, 1000, 4000, 20000)
    assert effective(sql, 40, 200, (50, 1000, 4000, 20000, 4000, 16000, 80000), slides) == pytest.approx(
        0.16 / 0.01 * (1.959964 / 12.706205) ** 2, rel=1e-6
    )


def tissues():
    """Slides of one patient: positive and all cells by block, blocks without a cell among them."""
    side = st.integers(1, 6)
    return st.tuples(
        st.integers(1, 3), side, side, st.integers(0, 2**32 - 1), st.sampled_from([1, 40, 10**6])
    )


BY_SLIDE = f"""
WITH counts AS (
  SELECT slide_id, sum(n_positive)::BIGINT AS x, sum(n_called)::BIGINT AS n FROM here GROUP BY ALL
),
slides AS (
  SELECT *, effective_cells(x, n, {", ".join(SUMS)}) AS number
  FROM cluster_sums(here) JOIN counts USING (slide_id)
),
pooled AS (
  SELECT count(*) AS n_slides, sum(x * x) AS xx, sum(x * n) AS xn, sum(n * n) AS nn, sum(x)::BIGINT AS x,
    sum(n)::BIGINT AS n, {", ".join(f"sum({name}) AS {name}" for name in SUMS)}
  FROM slides
),
every AS (
  SELECT slide_id, x, n, {", ".join(SUMS)}, number FROM slides
  UNION ALL
  SELECT NULL, x, n, {", ".join(SUMS)}, patient_effective_cells(x, n, {", ".join(SUMS)}, n_slides, xx, xn, nn)
  FROM pooled
)
SELECT *, clustered_lower_percent(x, n, number), clustered_upper_percent(x, n, number)
FROM every ORDER BY slide_id NULLS LAST
"""


@settings(max_examples=25, deadline=None)
@given(tissues(), st.floats(0, 1), st.floats(0, 1))
def test_sums_and_effective_numbers_agree_with_python(sql, tissue, share, empty):
    slides, height, width, seed, most = tissue
    rng = np.random.default_rng(seed)
    total = rng.integers(0, most + 1, (slides, height, width)) * (
        rng.random((slides, height, width)) >= empty
    )
    positive = rng.binomial(total, np.clip(share + rng.normal(0, 0.1, total.shape), 0, 1))
    filled = [s for s in range(slides) if total[s].any()]
    if not filled:
        return
    slide, down, right = np.nonzero(total)
    names = ("slide_id", "block_x", "block_y", "n_called", "n_positive")
    columns = ([f"s{s}" for s in slide], right - 3, down - 3, total[total > 0], positive[total > 0])
    sql.register("here", pa.table(dict(zip(names, columns, strict=True))))
    *found, pooled = sql.execute(BY_SLIDE).fetchall()
    sums, x, n = clustered.block_sums(positive, total), positive.sum((1, 2)), total.sum((1, 2))
    expected = np.transpose([x, n, *sums.values()])[filled]
    assert found == [
        (f"s{s}", *row, *rest[10:]) for s, row, rest in zip(filled, expected, found, strict=True)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = clustered.effective_cells(x, n, sums)[filled]
    for row, number in zip(found, numbers, strict=True):
        check(*row[1:3], *row[10:], number)
    patient = clustered.Sums(*expected.sum(0, keepdims=True).T[2:])
    both = clustered.patient_effective_cells(
        *expected.sum(0, keepdims=True).T[:2], patient, x[None, filled], n[None, filled]
    )
    check(*pooled[1:3], *pooled[10:], both[0])


def check(positive, total, ours, lower, upper, theirs):
    if np.isnan(theirs):
        assert ours is None and lower is None and upper is None
        return
    # Where residuals cancel to nothing, what is left of them is rounding on either side.
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert (lower, upper) == pytest.approx(
        tuple(map(float, clustered.interval(positive, total, ours))), abs=1e-7
    )
    plain = wilson(positive, total)
    assert 0 <= lower <= plain[0] + 1e-9 and plain[1] - 1e-9 <= upper <= 100
    assert (lower == 0) == (positive == 0) and (upper == 100) == (positive == total)


SOME = (30, 10**6, 10**7, 10**8, 10**6, 10**7, 10**8)


def test_nothing_to_tell(sql):
    assert effective(sql, 0, 0, (0, *[None] * 6)) is None  # no cell, and sums of no rows
    assert effective(sql, 5, 10, (1, 25, 50, 100, 100, 200, 400)) is None  # one block
    for missing in range(7):
        sums = [None if place == missing else number for place, number in enumerate(SOME)]
        assert effective(sql, 100, 1000, sums) is None, SUMS[missing]
    assert effective(sql, None, None, SOME) is None
    for missing in range(1, 4):
        slides = [
            None if place == missing else number for place, number in enumerate((2, 5000, 50000, 500000))
        ]
        assert effective(sql, 100, 1000, SOME, slides) is None
    assert effective(sql, 100, 1000, SOME, (None, 1, 1, 1)) is None
    assert ends(sql, 0, 10, None) == ends(sql, 10, 10, None) == [None, None]


def test_one_slide_has_the_interval_of_its_blocks(sql):
    sums = (30, 4000, 30000, 250000, 30000, 220000, 2000000)
    assert effective(sql, 100, 1000, sums, (1, 10**4, 10**5, 10**6)) == effective(sql, 100, 1000, sums) > 0


@pytest.mark.parametrize(("positive", "kept"), [(0, 0), (500, 1)])
def test_no_variance_is_seen_where_all_cells_are_alike(sql, positive, kept):
    blocks = (100, positive * 5, positive * 5, 2500, positive * 80, positive * 80, 40000)
    number = effective(sql, positive, 500, blocks)
    assert number == pytest.approx(500 * (clustered.Z / t.ppf(0.975, 24)) ** 2, rel=1e-5)
    found, plain = ends(sql, positive, 500, number), wilson(positive, 500)
    assert found[kept] == plain[kept] == (0.0, 100.0)[kept]
    assert abs(found[1 - kept] - plain[kept]) > abs(plain[1 - kept] - plain[kept])


def test_blocks_more_alike_than_chance_never_narrow_the_interval(sql):
    alike = np.full((1, 10, 10), 20), np.full((1, 10, 10), 100)
    sums = [int(number[0]) for number in clustered.block_sums(*alike).values()]
    number = effective(sql, 2000, 10000, sums)
    assert number == pytest.approx(10000 * (clustered.Z / t.ppf(0.975, 24)) ** 2, rel=1e-5)


def test_sums_of_a_large_cohort_stay_exact(sql):
    """50,000 blocks of 10⁷ cells: their windows' squares sum to 8 × 10¹⁹, which is more than BIGINT holds."""
    cells = 10**7
    found = sql.sql(
        "WITH blocks AS (SELECT 's' AS slide_id, i % 100 AS block_x, i // 100 AS block_y, "
        f"{cells} AS n_called, "
        f"{cells} - 1 AS n_positive FROM range(50000) AS r(i)) SELECT block_xx, block_nn, window_nn, "
        "typeof(window_xx) FROM cluster_sums(blocks)"
    ).fetchall()[0]
    inner = 99 * 499 * 16 + 2 * (99 + 499) * 4 + 4
    assert found == (50000 * (cells - 1) ** 2, 50000 * cells**2, inner * cells**2, "HUGEINT")


@pytest.fixture
def root(tmp_path):
    fake.commit(str(tmp_path), "it's a", [
        fake.cell(i, positive=i % 7 < 3, x_um=40.0 * (i % 60), y_um=55.0 * (i // 60)) for i in range(3000)
    ])  # fmt: skip
    return str(tmp_path)


def statement():
    """The statement in the head of the file, as people will copy it."""
    lines = FILE.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("--   SELECT slide_id"))
    end = next(i for i in range(start, len(lines)) if lines[i].endswith(";"))
    return "\n".join(line.removeprefix("--").strip() for line in lines[start : end + 1])


@pytest.mark.parametrize("sandbox", [False, True])
def test_the_statement_of_the_head(root, sandbox):
    (row,) = ask(root, statement(), sandbox=sandbox).to_pylist()
    (view,) = ask(root, "FROM slide_indices").to_pylist()
    assert row["lower"] == pytest.approx(view["ci_lower_percent"], rel=1e-12)
    assert 0 < row["lower"] < view["wilson_lower_percent"] < row["index_percent"]


def test_blocks_come_from_relations_alone(root):
    with connect(root, sandbox=True) as connection, pytest.raises(duckdb.Error):
        connection.execute("FROM cluster_sums('/etc/passwd')").fetchall()
    with pytest.raises(QueryError):
        ask(root, "FROM cluster_sums('/etc/passwd')", sandbox=True)
