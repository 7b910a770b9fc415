"""Memory: what an objective remembers of earlier steps, and how it finds it again."""

from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from embedkit.errors import InvalidInput
from embedkit.train.batch import Batch
from embedkit.train.objective import supplied
from embedkit.train.terms.views import check_views, unit

__all__ = ["Queue", "built", "queued_pairs"]

M = TypeVar("M", bound=nn.Module)


def built(batch: Batch, kind: type[M]) -> M:
    """The module that the objective's ``build`` returned.

    Raises:
        InvalidInput: If it is absent or of another kind.
    """
    module = supplied(batch.module, "module")
    if not isinstance(module, kind):
        raise InvalidInput(
            f"expected the {kind.__name__} that build() returns as batch.module, "
            f"got {type(module).__name__}"
        )
    return module


def queued_pairs(batch: Batch, name: str) -> tuple[torch.Tensor, torch.Tensor, "Queue"]:
    """What MoCo and its relatives compare: queries, their keys, and the queue of older keys.

    Args:
        batch: Two views of student and teacher, each (2, b, d), b >= 2, and the queue.
        name: Of the objective, for messages.

    Returns:
        Queries of both views (2b, d); the teacher's key of the other view of each (2b, d),
        without gradient; both of length 1.

    Raises:
        InvalidInput: If teacher or queue is missing, there are not two views, or fewer than two
            images.
    """
    check_views(batch.projections, views=2, name=name)
    queue = built(batch, Queue)
    keys = unit(supplied(batch.teacher, "teacher").detach()).flip(0).flatten(0, 1)
    return unit(batch.projections).flatten(0, 1), keys, queue


class Queue(nn.Module):
    """The last vectors of length 1 that were pushed; first in, first out.

    It starts full of random directions, as MoCo's does, so that no step is special.

    Args:
        size: How many it holds.
        dim: Their dimensions.
    """

    vectors: torch.Tensor
    cursor: torch.Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))

    def read(self) -> torch.Tensor:
        """All vectors, (size, dim) float32: a copy, which later pushes do not change."""
        return self.vectors.to(torch.float32, copy=True)

    @torch.no_grad()
    def push(self, vectors: torch.Tensor) -> None:
        """Put vectors in the place of the oldest.

        Args:
            vectors: (n, dim); of more than fit, the last ones stay.
        """
        size = len(self.vectors)
        newest = vectors[-size:].detach().to(self.vectors.dtype)
        places = (self.cursor + torch.arange(len(newest), device=newest.device)) % size
        self.vectors[places] = newest
        self.cursor.copy_((self.cursor + len(newest)) % size)
