"""Checks results, and mends them while no run works on them."""

import uuid
from collections.abc import Callable

from deepliif_ray import storage
from deepliif_ray.engine.run.lease import Lease
from deepliif_ray.tables.check import CheckReport, verify


def check(
    results: str, *, repair: bool = False, watch: Callable[[CheckReport], None] | None = None
) -> CheckReport:
    """Verify every object of results; see `deepliif_ray.tables.check.verify`.

    With ``repair`` the results' lease is held meanwhile, so that no run begins.

    Raises
    ------
    ResultsInUseError
        With ``repair``: a run works on these results.
    ResultsError, StorageError
        As `verify`.
    """
    results = storage.absolute(results)
    if not repair or not storage.exists(results):  # of results that are not there it tells, without a lease
        return verify(results, watch=watch)
    with Lease(results, f"check-{uuid.uuid4().hex[:8]}", dict):
        return verify(results, repair=True, watch=watch)
