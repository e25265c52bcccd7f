"""The processes of a training run: one alone, or those of torch.distributed if it was initialised."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Team:
    """A process among those that train together.

    Parameters
    ----------
    rank : int
        Number of the process, from 0.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Team":
        """Return the team of torch.distributed, or of this process alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def gather(self, value: Any) -> list[Any]:
        """Return every process's ``value``, in the order of ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def agree(self, value: Any) -> Any:
        """Return the ``value`` of rank 0 to every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give ``tensors`` the values they have on rank 0."""
        if self.size > 1:
            for tensor in tensors:
                whole = tensor.detach().contiguous()
                dist.broadcast(whole, src=0)
                tensor.detach().copy_(whole)

    def sum_gradients(
        self, parameters: Sequence[Tensor], terms: Sequence[Tensor], share: float
    ) -> list[Tensor]:
        """Make gradients and loss terms those of the whole batch: the workers' sum, weighted by their shares.

        Everything travels as one bucket. A parameter without gradient counts as one with zeros.

        Parameters
        ----------
        parameters : sequence of Tensor
            Their ``grad`` is replaced.
        terms : sequence of Tensor
            Scalars, the mean over this process's part of the batch.
        share : float
            Fraction of the batch's samples that this process has.

        Returns
        -------
        list of Tensor
            Scalars without gradients: the terms of the whole batch.
        """
        if self.size == 1:
            return [term.detach().float() for term in terms]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = [g.reshape(-1).float() for g in grads]
        bucket = torch.cat([*flat, *(term.detach().reshape(1).float() for term in terms)]) * share
        dist.all_reduce(bucket)
        pieces = torch.split(bucket, [*(g.numel() for g in grads), *(1 for _ in terms)])
        for parameter, piece in zip(parameters, pieces, strict=False):
            # copied into the parameter's memory format, with which optimisers are fastest
            parameter.grad = torch.empty_like(parameter).copy_(piece.view(parameter.shape))
        return [piece.squeeze(0) for piece in pieces[len(grads) :]]
