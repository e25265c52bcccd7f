"""Runs that several tests compare theirs with."""

import os
import sys
from pathlib import Path

import pytest
import torch

from deepliif_ray.training.run.config import train_config
from tests.training.toy import strip_options, train_in_two, write_strip

# What pip would have installed: a distribution that offers objectives to this process and those it starts.
_PLUGIN = str(Path(__file__).parent / "plugin")
sys.path.append(_PLUGIN)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), _PLUGIN]))


@pytest.fixture(scope="session")
def two_workers(tmp_path_factory):
    """A configuration, and what two processes undisturbed made of it."""
    folder = tmp_path_factory.mktemp("workers")
    strips = [str(write_strip(folder / f"strip-{n}.png", n)) for n in range(3)]
    config = train_config(strip_options(strips, objective_options={"dropout": 0.0}))
    torch.multiprocessing.spawn(train_in_two, (folder / "undisturbed", config, False), nprocs=2)
    return config, folder / "undisturbed"
