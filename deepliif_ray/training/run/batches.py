"""Which crops a step trains on: a pure function of the seed, so that workers and restarts change nothing."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepliif_ray.errors import ConfigError
from deepliif_ray.evaluation.fields import shown
from deepliif_ray.native import NativeView
from deepliif_ray.training.objectives.base import Batch
from deepliif_ray.training.panels.augment import Augment, augmented
from deepliif_ray.training.panels.files import IHC, Panels, UInt8Array
from deepliif_ray.training.run.config import TrainConfig

STEPS_AHEAD = 3
KEPT = 1024
"""Changed tiles kept in memory: 0.8 MB each at 512 px, and measuring one takes as long as augmenting it."""
PANEL_MPP = 0.25
"""µm per pixel of panels, where the objective does not say."""


class Tiles(Protocol):
    """Tiles by number, such as `deepliif_ray.training.panels.store.PanelStore`."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def get(self, index: int) -> Panels:
        """Return one of them."""
        ...

    def source_of(self, index: int) -> int:
        """Return which of the sources it came from, by the source's place in the list."""
        ...


class ShownTiles:
    """Tiles as a model is to see them: with the glass and hematoxylin that it knows.

    Parameters
    ----------
    tiles : Tiles
    native : NativeView
        What the model knows; panels are at its scale.
    """

    def __init__(self, tiles: Tiles, native: NativeView) -> None:
        self._tiles, self._native = tiles, native
        self.source_of = tiles.source_of
        self.get = lru_cache(KEPT)(self._get)

    def __len__(self) -> int:
        return len(self._tiles)

    def _get(self, index: int) -> Panels:
        """Return a tile whose IHC was changed."""
        tile = self._tiles.get(index)
        return replace(tile, ihc=shown(self._native, tile.ihc, self._native.mpp or PANEL_MPP))


class Sampler:
    """Draws crops.

    Parameters
    ----------
    tiles : Tiles
    weights : sequence of float
        Share of the samples for each source.
    batch_size : int
        Samples of a step, all workers together.
    crop : int
        Side of a sample, px.
    settings : Augment
    seed : int
    in_turn : bool
        Whether all tiles are taken, in a random order, before any is taken again; ``weights`` do not count
        then. If not, each sample is drawn on its own.

    Raises
    ------
    ConfigError
        A source has no tiles.
    """

    def __init__(
        self,
        tiles: Tiles,
        weights: Sequence[float],
        *,
        batch_size: int,
        crop: int,
        settings: Augment,
        seed: int,
        in_turn: bool = False,
    ) -> None:
        self._tiles, self._batch_size, self._crop, self._settings = tiles, batch_size, crop, settings
        self._seed, self._in_turn = seed, in_turn
        self._members: list[list[int]] = [[] for _ in weights]
        for index in range(len(tiles)):
            self._members[tiles.source_of(index)].append(index)
        empty = [place for place, members in enumerate(self._members) if not members]
        if empty:
            raise ConfigError(f"data.{empty[0]}: this source has no tiles")
        self._shares = np.asarray(weights, float) / sum(weights)

    def sample(self, step: int, k: int) -> Panels:
        """Return sample ``k`` of ``step``."""
        rng = np.random.default_rng([self._seed, step, k])
        if self._in_turn:
            epoch, place = divmod((step - 1) * self._batch_size + k, len(self._tiles))
            index = int(_order(self._seed, epoch, len(self._tiles))[place])
        else:
            members = self._members[rng.choice(len(self._members), p=self._shares)]
            index = members[rng.integers(len(members))]
        return augmented(self._tiles.get(index), rng, self._crop, self._settings)

    def batches(
        self, first: int, last: int, *, rank: int = 0, workers: int = 1, threads: int = 2
    ) -> Iterator[list[Panels]]:
        """Yield one worker's samples of steps ``first`` to ``last``, prepared ahead by threads.

        Of a step's samples, worker ``rank`` has those whose number leaves the rest ``rank`` when divided by
        ``workers``.
        """
        waiting: deque[list[Future[Panels]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for step in range(first, last + STEPS_AHEAD + 1):
                    if step <= last:
                        mine = range(rank, self._batch_size, workers)
                        waiting.append([pool.submit(self.sample, step, k) for k in mine])
                    if step >= first + STEPS_AHEAD and waiting:
                        yield [future.result() for future in waiting.popleft()]
            finally:
                for future in (f for futures in waiting for f in futures):
                    future.cancel()


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the numbers of ``count`` tiles as they come in ``epoch``."""
    # Trailing zeros make no other stream, so a fourth number keeps this one apart from those of samples.
    return np.random.default_rng([seed, epoch, 0, 1]).permutation(count)


def to_tensor(images: Sequence[UInt8Array], device: torch.device) -> Tensor:
    """Return uint8 images (H, W, 3) as float32 (B, 3, H, W) in [-1, 1].

    Channels are last in memory, but not on a CPU: see `deepliif_ray.training.run.trainer.layout`.
    """
    stacked = torch.from_numpy(np.stack(images))
    tensor = stacked.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    return tensor.contiguous() if tensor.device.type == "cpu" else tensor


def to_images(tensor: Tensor) -> UInt8Array:
    """Return float (B, 3, H, W) in [-1, 1] as uint8 images (B, H, W, 3), rounded."""
    scaled = tensor.detach().float().add(1.0).mul(127.5).round().clamp(0, 255)
    images: UInt8Array = scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return images


def to_batch(panels: Sequence[Panels], targets: Sequence[str], device: torch.device) -> Batch:
    """Return tiles of one size as a batch on ``device``.

    Raises
    ------
    ConfigError
        A tile lacks one of ``targets``; the message names it.
    """
    for tile in panels:
        missing = [name for name in targets if name not in tile.targets]
        if missing:
            raise ConfigError(f"{tile.name}: has no panel {missing[0]}, which the objective needs")
    return Batch(
        ihc=to_tensor([tile.ihc for tile in panels], device),
        targets={name: to_tensor([tile.targets[name] for tile in panels], device) for name in targets},
    )


def data_origin(config: TrainConfig, tiles: Tiles) -> list[dict[str, Any]]:
    """Return of each source its URL, weight, number of tiles, and a digest of all their pixels."""
    counts = [0] * len(config.data)
    digests = [hashlib.sha256() for _ in config.data]
    for index in range(len(tiles)):
        source, tile = tiles.source_of(index), tiles.get(index)
        counts[source] += 1
        for name, image in ((IHC, tile.ihc), *sorted(tile.targets.items())):
            digests[source].update(f"{name} {image.shape}\n".encode())
            digests[source].update(np.ascontiguousarray(image).data)
    return [
        {**source.model_dump(), "tiles": count, "digest": digest.hexdigest()[:16]}
        for source, count, digest in zip(config.data, counts, digests, strict=True)
    ]
