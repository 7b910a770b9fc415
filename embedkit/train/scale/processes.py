"""Processes: one run on several GPUs or machines that share its folder, by ``torchrun``.

All processes draw the same views and compute the same loss; only the networks, where the time
goes, run on each process's share of the batch. Embeddings are gathered before the loss, so that
every objective, whatever it compares, sees exactly the batch that one process would see. As all
compute the whole loss, the gradient of a process's own embeddings is complete on it, and the
gradients of the weights add up over the processes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from torch import distributed, nn

from embedkit.errors import Cancelled, InvalidInput
from embedkit.train.images import Groups
from embedkit.train.learner import Learner, Network, Part, State, Viewed, Way
from embedkit.train.scale.sync_norm import synchronise_norms

__all__ = ["ALONE", "Processes", "joined"]

T = TypeVar("T")

_MEETING = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""What processes find each other by."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; alone by default.

    Attributes:
        rank: Of this process, 0-based.
        size: How many there are.
        local_rank: Among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def first(self, action: Callable[[], T], otherwise: Callable[[], T]) -> T:
        """Do something on the first process, then something else on the others.

        Raises:
            Cancelled: On the others, if the first one failed; its own error is raised there.
        """
        if self.size == 1:
            return action()
        if self.is_first:
            try:
                done = action()
            except BaseException:
                self._agree(False)
                raise
            self._agree(True)
            return done
        if not self._agree(True):
            raise Cancelled("the first process could not go on; its message says why")
        return otherwise()

    def any(self, value: bool) -> bool:
        """Whether it is true on any process: all of them get the same answer."""
        return not self._agree(not value)

    def _agree(self, value: bool) -> bool:
        """Whether it is true on all processes."""
        if self.size == 1:
            return value
        votes = torch.tensor([int(value)], device=_device())
        distributed.all_reduce(votes, op=distributed.ReduceOp.MIN)
        return bool(votes.item())

    def same(self, groups: Groups) -> Groups:
        """The first process's groups, on all: rounding may have told them apart."""
        if self.size > 1:
            clusters = groups.clusters.to(_device())
            distributed.broadcast(clusters, 0)
            groups = groups._replace(clusters=clusters.cpu())
        return groups

    def attach(self, state: State) -> None:
        """Let the state's networks run on this process's share of every batch.

        Raises:
            InvalidInput: If batch norm over several processes is not to be had.
        """
        if self.size == 1:
            return
        for learner in filter(None, (state.learner, state.teacher)):
            synchronise_norms(learner.encoder)
            synchronise_norms(learner.projector)
            learner.way = Sharded(self, learner.way)

    def check(self, batch_size: int) -> None:
        """Raise InvalidInput unless the batch can be shared out evenly."""
        if batch_size % self.size:
            raise InvalidInput(
                f"expected schedule.batch_size to be a multiple of the {self.size} processes, "
                f"got {batch_size}"
            )

    def check_same(self, found: int, what: str) -> None:
        """Raise InvalidInput unless all processes found the same in the run folder.

        Args:
            found: By this process.
            what: It is, for the message.
        """
        if self.size == 1:
            return
        own = torch.tensor([found], device=_device())
        everyone = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(everyone, own)
        values = [int(value) for value in everyone]
        if len(set(values)) > 1:
            raise InvalidInput(
                f"expected all {self.size} processes to find the same {what} in the run "
                f"folder, got {values} by rank; put --out into a folder that all machines share"
            )

    def share(self, count: int) -> slice:
        """Which of ``count`` images are this process's."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    @torch.no_grad()
    def add_gradients(self, learner: Learner) -> None:
        """Make every process's gradients those of the whole batch.

        The objective's own module saw the whole batch everywhere: its gradients are averaged,
        which only keeps rounding from pulling the processes apart.
        """
        if self.size == 1:
            return
        _reduce(chain(learner.encoder.parameters(), learner.projector.parameters()), 1.0)
        if learner.module is not None:
            _reduce(learner.module.parameters(), 1.0 / self.size)


ALONE = Processes()


@dataclass(frozen=True)
class Sharded:
    """Runs a network on this process's share and gathers what all processes got.

    Attributes:
        processes: Of the run.
        way: How the share is run.
    """

    processes: Processes
    way: Way | None

    def __call__(self, network: Network, part: Part) -> Viewed:
        """Return what the network says of all images, with gradient through the own ones."""
        mine = part.at(self.processes.share(part.pixels.shape[1]))
        if mine.token is not None:
            # It is one weight of the objective that every process used on its own share.
            mine = mine._replace(token=_SumGradient.apply(mine.token))  # type: ignore[no-untyped-call]
        viewed = network(mine) if self.way is None else self.way(network, mine)
        return viewed.each(lambda own: _gathered(own, self.processes))


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that ``torchrun`` started; this one alone without it.

    Args:
        device: ``cpu``, ``cuda`` or ``auto``, as for ``train``.

    Raises:
        InvalidInput: If ``WORLD_SIZE`` is set without the rest of what ``torchrun`` sets.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not distributed.is_available():
        yield ALONE
        return
    missing = [name for name in _MEETING if name not in os.environ]
    if missing and not distributed.is_initialized():
        raise InvalidInput(
            f"expected {', '.join(_MEETING)} beside WORLD_SIZE={size} in the environment, got "
            f"none of {', '.join(missing)}; start with torchrun, or unset WORLD_SIZE"
        )
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local_rank)
    is_mine = not distributed.is_initialized()
    if is_mine:
        distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(distributed.get_rank(), size, local_rank)
    finally:
        if is_mine:
            distributed.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All processes' (v, b, ...) side by side along b; the gradient is that of the own part."""

    @staticmethod
    def forward(ctx: object, own: torch.Tensor, processes: Processes) -> torch.Tensor:
        ctx.processes = processes  # type: ignore[attr-defined]
        parts = [torch.empty_like(own) for _ in range(processes.size)]
        distributed.all_gather(parts, own)
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        processes: Processes = ctx.processes  # type: ignore[attr-defined]
        return gradient[:, processes.share(gradient.shape[1])].contiguous(), None


class _SumGradient(torch.autograd.Function):
    """The value itself; its gradient is the sum over all processes."""

    @staticmethod
    def forward(ctx: object, value: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def _gathered(own: torch.Tensor, processes: Processes) -> torch.Tensor:
    whole: torch.Tensor = _Gather.apply(own.contiguous(), processes)  # type: ignore[no-untyped-call]
    return whole


def _reduce(parameters: Iterator[nn.Parameter], scale: float) -> None:
    """Add up gradients over all processes in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat.mul_(scale)
    parts = torch.split(flat, [g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _device() -> torch.device:
    """Where the backend's messages have to lie."""
    is_gpu = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if is_gpu else torch.device("cpu")
