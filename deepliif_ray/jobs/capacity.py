"""Waiting until a cluster has the CPUs and GPUs that a job asks for."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
import ray.autoscaler.sdk

from deepliif_ray.cluster import cluster
from deepliif_ray.errors import ConfigError, JobError
from deepliif_ray.jobs.config import Resources

_LOOK_S = 5.0
_SAY_S = 60.0


@contextmanager
def cluster_with_room(
    address: str | None, resources: Resources, say: Callable[[str], None]
) -> Iterator[None]:
    """Connect to a cluster as `deepliif_ray.cluster.cluster` does, and wait until it is large enough.

    A cluster that grows on demand may have no GPU yet; without waiting, the job would run on CPUs.

    Raises
    ------
    ConfigError
        There is no cluster, or this machine alone has not enough.
    JobError
        The cluster has not become large enough in time.
    """
    own = address in (None, "local") and not ray.is_initialized() and "RAY_ADDRESS" not in os.environ
    needed = {"CPU": resources.cpus or 0.0, "GPU": float(resources.gpus or 0)}
    with cluster(address):
        if own and (lacking := _lacking(needed)):
            raise ConfigError(f"resources: this machine lacks {lacking}; ask for less, or give a cluster")
        if _lacking(needed):
            _wait(needed, 60 * resources.wait_minutes, say)
        yield


def _wait(needed: dict[str, float], seconds: float, say: Callable[[str], None]) -> None:
    bundles = [{name: 1} for name, count in needed.items() for _ in range(math.ceil(count))]
    ray.autoscaler.sdk.request_resources(bundles=bundles)
    give_up, said = time.monotonic() + seconds, -math.inf
    try:
        while lacking := _lacking(needed):
            if time.monotonic() > give_up:
                raise JobError(
                    f"the cluster still lacks {lacking} after {seconds / 60:g} minutes; "
                    "let it grow, or change resources"
                )
            if time.monotonic() - said > _SAY_S:
                said = time.monotonic()
                say(f"waiting: the cluster lacks {lacking}")
            time.sleep(_LOOK_S)
    finally:
        ray.autoscaler.sdk.request_resources(bundles=[])  # else it would hold the nodes when the job is over


def _lacking(needed: dict[str, float]) -> str:
    """Say which resources the connected cluster has too little of; nothing when it has enough."""
    has = ray.cluster_resources()
    return ", ".join(
        f"{name}s (has {has.get(name, 0):g} of {count:g})"
        for name, count in needed.items()
        if has.get(name, 0) < count
    )
