"""Listings that come late: what is shown is right, whatever is missing, and later everything is there."""

from itertools import count

import pytest

from deepliif_ray import optimize
from deepliif_ray.errors import DeepliifRayError
from deepliif_ray.watching import Watcher
from tests.engine.generations import score_local
from tests.engine.lagging_store import LaggingStore

_number = count()


@pytest.mark.parametrize("lag", [1, 2, 3, 5, 8, 13, 10**4])
def test_late_listings_give_no_wrong_number(generations, lag):
    results = f"lagging:///results-{next(_number)}"
    LaggingStore.begin(lag)

    def look() -> None:
        assert generations.wrong(results, {}) is None
        assert Watcher(results).look() is None

    for step in (
        lambda: score_local(generations.first, results),
        lambda: score_local(generations.second, results),
        lambda: optimize(results, keep_minutes=0),
        lambda: optimize(results, keep_minutes=0, drop_superseded=True),
        lambda: score_local(generations.second, results),
    ):
        try:
            summary = step()
            failures = getattr(summary, "failures", ())
            assert all("run again" in why or "connect again" in why for _, why in failures), failures
        except DeepliifRayError as error:
            assert results in str(error)
        look()
    assert LaggingStore.stale_listings
    LaggingStore.settle()
    assert score_local(generations.second, results).failed == 0
    assert generations.differs(results) is None
    assert optimize(results, keep_minutes=0, drop_superseded=True)
    assert generations.differs(results) is None
