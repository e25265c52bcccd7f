"""How a cluster of this machine alone is started."""

import os

import pytest

from deepliif_ray import cluster as module

VARIABLE = "RAY_worker_register_timeout_seconds"


@pytest.mark.parametrize("own", [None, "5"])
def test_processes_that_start_slowly_are_waited_for(monkeypatch, own):
    """Ray's own patience is a minute; processes given up are started again, which takes as long."""
    started = []
    monkeypatch.setattr(module.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(
        module.ray, "init", lambda address, **_: started.append((address, os.environ[VARIABLE]))
    )
    monkeypatch.setattr(module.ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if own is None:
        monkeypatch.setenv(VARIABLE, "0")  # so that it is put back at the end
        monkeypatch.delenv(VARIABLE)
    else:
        monkeypatch.setenv(VARIABLE, own)
    with module.cluster(None):
        pass
    assert started == [("local", own or module.WORKER_START_S)]
