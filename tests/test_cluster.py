"""How a cluster of this machine alone is started."""

import os

import pytest

from deepliif_ray import cluster as module
from deepliif_ray.errors import ConfigError

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


@pytest.mark.parametrize("fails", [False, True])
def test_what_ray_says_when_it_starts_is_passed_on_without_its_greeting(monkeypatch, capfd, fails):
    def init(address, **_):
        os.write(2, b"[2026 I 1 1] logging.cc:303: Set ray log level from a variable\nreal trouble\n")
        if fails:
            raise ConnectionError("no cluster")

    monkeypatch.setattr(module.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(module.ray, "init", init)
    monkeypatch.setattr(module.ray, "shutdown", lambda: None)
    if fails:
        with pytest.raises(ConfigError, match="cannot connect"), module.cluster("local"):
            pass
    else:
        with module.cluster("local"):
            os.write(2, b"later\n")
    assert capfd.readouterr().err == "real trouble\n" + ("" if fails else "later\n")
