"""Checkpoints: everything a run needs to go on, one file each, at any URL."""

import io
import pickle
import re
from typing import Any

import torch

from deepliif_ray import storage
from deepliif_ray.errors import ModelError, StorageError

_NAME = re.compile(r"step-(\d+)\.pt")


def folder(output: str) -> str:
    """Return where a run that writes to ``output`` keeps its checkpoints."""
    return storage.join(output, "checkpoints")


def url_of(output: str, step: int) -> str:
    """Return the URL of the checkpoint written after ``step`` updates."""
    return storage.join(folder(output), f"step-{step:08d}.pt")


def steps(output: str) -> list[int]:
    """Return the steps after which there are checkpoints, ascending."""
    names = (url.rpartition("/")[2] for url in storage.list_files(folder(output), ".pt"))
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def save(output: str, step: int, state: dict[str, Any], *, keep: int, best: int | None) -> None:
    """Write a checkpoint, complete or not at all, then remove all but the newest ``keep`` and the best.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    storage.write_bytes(url_of(output, step), buffer.getvalue())
    for old in steps(output)[:-keep]:
        if old != best:
            storage.remove(url_of(output, old))


def read(url: str) -> dict[str, Any]:
    """Return the state in the checkpoint at ``url``, its tensors on the CPU.

    Raises
    ------
    ModelError
        It is not one of our checkpoints.
    StorageError
        It cannot be read.
    """
    data = storage.read_bytes(url)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ModelError(f"{url}: cannot be read as a checkpoint ({error})") from error
    if not isinstance(state, dict) or "trainer" not in state:
        raise ModelError(f"{url}: not a checkpoint of a training run")
    return state


def best_of(url: str) -> str:
    """Return ``url`` if it is a checkpoint's, else the URL of the best checkpoint of the run at ``url``.

    Raises
    ------
    StorageError
        There is none.
    """
    if url.endswith(".pt"):
        return url
    found = steps(url)
    if not found:
        raise StorageError(f"{url}: no checkpoints here; expected a training run's output")
    best = read(url_of(url, found[-1]))["standing"]["best"]
    return url_of(url, found[-1] if best is None else best["step"])
