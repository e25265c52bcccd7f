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
    with cluster(address):
        needed = {"CPU": resources.cpus or 0.0, "GPU": float(resources.gpus or 0)}
        if _lacking(needed) and not own:
            ray.autoscaler.sdk.request_resources(
                bundles=[{"CPU": 1}] * int(needed["CPU"]) + [{"GPU": 1}] * int(needed["GPU"])
            )
        give_up = time.monotonic() + (0 if own else 60 * resources.wait_minutes)
        said = -math.inf
        while lacking := _lacking(needed):
            if own:
                raise ConfigError(f"resources: this machine lacks {lacking}; ask for less, or give a cluster")
            if time.monotonic() > give_up:
                raise JobError(
                    f"the cluster still lacks {lacking} after {resources.wait_minutes:g} minutes; "
                    "let it grow, or change resources"
                )
            if time.monotonic() - said > _SAY_S:
                said = time.monotonic()
                say(f"waiting: the cluster lacks {lacking}")
            time.sleep(_LOOK_S)
        yield


def _lacking(needed: dict[str, float]) -> str:
    """Say which resources the connected cluster has too little of; nothing when it has enough."""
    has = ray.cluster_resources()
    return ", ".join(
        f"{name}s (has {has.get(name, 0):g} of {count:g})"
        for name, count in needed.items()
        if has.get(name, 0) < count
    )
