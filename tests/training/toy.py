"""A tiny objective with dropout and a discriminator, and tiles for it."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deepliif_ray import storage
from deepliif_ray.errors import ConfigError
from deepliif_ray.training.panels.files import Panels
from deepliif_ray.training.panels.store import PanelStore
from deepliif_ray.training.run.loop import fit

TOY = "toy"
"""An entry point of the distribution in tests/training/plugin; see conftest.py."""


class Toy:
    """Draws hematoxylin and seg with two convolutions.

    It may take its time over steps, note its processes' ids in a folder, and kill the second worker at a
    step, once.
    """

    def __init__(self, width=4, dropout=0.5, pause=0.0, folder="", dies_at=0, shares=()):
        if width == 3:
            raise ConfigError("width is 3, of all numbers")
        self._pause, self._folder, self._dies_at = pause, folder and Path(folder), dies_at
        drawer = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Dropout(dropout)]
        judge = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 4, 1, 1)]
        self.generators = nn.ModuleDict(
            {"g": nn.Sequential(*drawer, nn.Conv2d(width, 6, 3, padding=1), nn.Tanh())}
        )
        self.discriminators = nn.ModuleDict({"d": nn.Sequential(*judge)})
        self.targets = ("hematoxylin", "seg")

    def forward(self, batch):
        return {"both": self.generators["g"](batch.ihc)}

    def _verdict(self, batch, seg):
        return self.discriminators["d"](torch.cat([batch.ihc, seg], 1))

    def discriminator_terms(self, batch, outputs):
        real, fake = (self._verdict(batch, seg) for seg in (batch.targets["seg"], outputs["both"][:, 3:]))
        return {"judge": (real - 1).square().mean() + fake.square().mean()}

    def generator_terms(self, batch, outputs, step):
        time.sleep(self._pause)
        if self._folder:
            rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
            (self._folder / f"pid-{rank}").write_text(str(os.getpid()))
            mark = self._folder / "died"
            if rank == 1 and step == self._dies_at and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        truth = torch.cat([batch.targets[name] for name in self.targets], 1)
        return {
            "fool": 0.1 * (self._verdict(batch, outputs["both"][:, 3:]) - 1).square().mean(),
            "l1": 10 * (outputs["both"] - truth).abs().mean(),
        }

    def predict(self, batch):
        both = self.forward(batch)["both"].float()
        return {"hematoxylin": both[:, :3], "seg": both[:, 3:]}

    def export(self, url, metadata):
        weights = {k: v.tolist() for k, v in self.generators.state_dict().items()}
        storage.write_bytes(
            storage.join(url, "model.json"), json.dumps({"metadata": metadata, "weights": weights}).encode()
        )


class ToyTiles:
    """Random tiles; every second one of source 1."""

    def __init__(self, count=6, sources=2, height=70, width=100):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (count, height // 5, width // 5, 3), dtype=np.uint8)
        images = images.repeat(5, axis=1).repeat(5, axis=2)
        self._tiles = [
            Panels(f"tile {n}", image, {"hematoxylin": 255 - image, "seg": image[..., ::-1].copy()})
            for n, image in enumerate(images)
        ]
        self._sources = sources

    def __len__(self):
        return len(self._tiles)

    def get(self, index):
        return self._tiles[index]

    def source_of(self, index):
        return index % self._sources


def options(**changes):
    """Configuration of a short run that does everything."""
    return {
        "objective": TOY,
        "data": [{"uri": "a"}, {"uri": "b", "weight": 3}],
        "validation": ["v"],
        "crop": 32,
        "batch_size": 3,
        "steps": 12,
        "log_every": 1,
        "validate_every": 4,
        "checkpoint_every": 3,
        "sample_grid_every": 6,
        "ema_decay": 0.9,
        "gradient_clip": 1.0,
        "threads": 1,
        **changes,
    }


def write_strip(path, seed, tiles=2, side=64):
    """Write a published strip of six panels with blobs in it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (tiles * side // 8, side // 8, 3), dtype=np.uint8)
    panel = small.repeat(8, axis=0).repeat(8, axis=1)[:side]
    Image.fromarray(np.concatenate([panel, 255 - panel, panel, panel, panel, panel[..., ::-1]], 1)).save(path)
    return path


def strip_options(strips, **changes):
    """Configuration of a run on two strips, validated on a third."""
    a, b, held_out = strips
    return options(data=[{"uri": a}, {"uri": b, "weight": 2}], validation=[held_out], **changes)


def strips_of(config):
    """URLs to train on, and to validate on."""
    return [source.uri for source in config.data], config.validation


class StoppedError(Exception):
    """A run was interrupted."""


def stop_at_validation(step, _metrics):
    if step == 8:
        raise StoppedError


def train_in_two(rank, output, config, stops):
    """Train as one of two processes; be stopped first, if so asked, and go on."""
    meet = f"file://{output}.meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    tiles, held_out = (PanelStore.local(uris, ["hematoxylin"]) for uris in strips_of(config))
    if stops:
        with pytest.raises(StoppedError):
            fit(config, str(output), tiles, held_out, report=stop_at_validation)
    fit(config, str(output), tiles, held_out)
    torch.distributed.destroy_process_group()
