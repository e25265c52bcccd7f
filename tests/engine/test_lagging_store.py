"""Listings that come late: what is shown is right, nothing vanishes in silence, and later all is there."""

from contextlib import suppress

import pytest

from deepliif_ray import optimize
from deepliif_ray.errors import DeepliifRayError
from deepliif_ray.watching import Watcher
from tests.engine.generations import score_local, shown
from tests.engine.lagging_store import LaggingStore
from tests.few import few

RESULTS = "lagging:///results"


@pytest.mark.parametrize("lag", few([2, 6, 10**4], 1))
def test_late_listings_give_no_wrong_number(generations, lag):
    LaggingStore.begin(lag)
    for step in (
        lambda: score_local(generations.first, RESULTS),
        lambda: score_local(generations.second, RESULTS),
        lambda: optimize(RESULTS, keep_minutes=0, drop_superseded=True),
    ):
        with suppress(DeepliifRayError):
            failures = getattr(step(), "failures", ())
            assert all("run again" in why for _, why in failures), failures
        assert generations.wrong(RESULTS, {}) is None
        assert Watcher(RESULTS).look() is None
    assert LaggingStore.stale_listings
    LaggingStore.lag = 0
    assert score_local(generations.second, RESULTS).failed == 0
    assert generations.differs(RESULTS) is None


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_joined_does_not_vanish_while_listings_are_late(generations, every):
    """The old records are still listed, and gone; the joined one is not listed yet."""
    LaggingStore.begin(0)
    score_local(generations.first, RESULTS)
    score_local(generations.second, RESULTS)
    scored = dict(LaggingStore.store)
    found_out = 0
    for lag in range(1, 20, every):
        LaggingStore.begin(lag, scored)
        with suppress(DeepliifRayError):
            optimize(RESULTS, keep_minutes=0)
        try:
            now, _ = shown(RESULTS)
        except DeepliifRayError as error:
            assert "listing" in str(error)
            found_out += 1
        else:
            assert now == {slide: known["second"] for slide, known in generations.shown.items()}
        with suppress(DeepliifRayError):
            score_local(generations.second, RESULTS)
        LaggingStore.lag = 0
        assert score_local(generations.second, RESULTS).failed == 0
        assert generations.differs(RESULTS) is None
    assert found_out
