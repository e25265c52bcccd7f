"""Run tiles through networks so that a tile's result depends on that tile alone."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from deepliif_ray.models.base import UInt8Array

MAX_CPU_WORKERS = 64
Key = TypeVar("Key", bound=int | str)
Images = dict[Key, UInt8Array]


def run_tiles(
    tiles: UInt8Array,
    run: Callable[[UInt8Array], Images[Key]],
    *,
    size: int,
    device: torch.device,
    exact: bool,
    batch_size: int,
) -> Iterator[tuple[int, Images[Key]]]:
    """Yield the index of the first tile of every batch, and the images that ``run`` makes of the batch.

    Parameters
    ----------
    tiles : numpy.ndarray
        uint8 (N, H, H, 3). They are resized to ``size`` before, and images back to H after, with Pillow's
        bicubic filter, as published.
    run : callable
        Makes uint8 images (B, size, size, 3) of a batch of tiles of that size.
    size : int
        Side that the networks take, px.
    device : torch.device
        On a CPU every tile runs alone on one thread, several side by side, because how oneDNN rounds depends
        on batch and threads. On a GPU all batches have ``batch_size`` tiles, the last one filled up.
    exact : bool
        Whether TF32, too coarse for float32's promise, is off.
    batch_size : int
        Tiles in a batch on a GPU.
    """
    side = tiles.shape[1]

    def whole(start: int, count: int) -> Images[Key]:
        images = run(_filled(resize(tiles[start : start + count], size), count))
        return {key: resize(image[: len(tiles) - start], side) for key, image in images.items()}

    if device.type != "cpu":
        for start in range(0, len(tiles), batch_size):
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=not exact
            ):
                yield start, whole(start, batch_size)
        return

    def alone(index: int) -> Images[Key]:
        torch.set_num_threads(1)  # of this thread
        return whole(index, 1)

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(max(1, min(threads, len(tiles), MAX_CPU_WORKERS))) as pool:
            yield from enumerate(pool.map(alone, range(len(tiles))))
    finally:
        torch.set_num_threads(threads)


def _filled(batch: UInt8Array, count: int) -> UInt8Array:
    """Return ``batch`` with its last tile repeated until it has ``count``."""
    return np.concatenate([batch, np.repeat(batch[-1:], count - len(batch), axis=0)])


def resize(images: UInt8Array, side: int) -> UInt8Array:
    """Return ``images`` (B, H, H, 3) with ``side`` pixels a side, by Pillow's bicubic filter."""
    if images.shape[1] == side:
        return images
    resized = [Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in images]
    return np.stack([np.asarray(image) for image in resized])


def brightest(images: UInt8Array) -> UInt8Array:
    """Return the greatest of the three channels of ``images`` (B, H, W, 3), as published of marker images.

    In pairs: NumPy takes several times as long for the maximum along an axis of three.
    """
    return np.maximum(np.maximum(images[..., 0], images[..., 1]), images[..., 2])
