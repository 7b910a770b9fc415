"""Searches that wait for a core: those that differ in their vectors alone are made as one.

What a search costs beside FAISS is mostly the same for one query and for a hundred. Nothing is
waited for: a search that finds a free core begins at once, and whatever came meanwhile is made
together when that core is free again.
"""

import threading
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from embedkit.errors import QueueFull
from embedkit.retrieve.patience import Patience
from embedkit.runtime.cores import usable_cores
from embedkit.serve.handlers import is_shedding
from embedkit.serve.services.call import Call
from embedkit.serve.services.index.parts import patience_of
from embedkit.serve.services.index.search import SearchCalls
from embedkit.wire.proto import index_pb2, tensor_pb2

__all__ = ["SearchLine"]

_MOST_QUERIES = 256
# Requests of so few do not wait for larger ones.
_FEW_QUERIES = 8
_MOST_HITS = 1 << 16
_FULL = "too many calls are waiting already; retry later"


class _Waiting(NamedTuple):
    """A search that waits, and its number of queries."""

    request: index_pb2.SearchRequest
    call: Call
    queries: int


class _Group:
    """Searches for ``k`` hits that may be made as one, and how many cores make some of them."""

    __slots__ = ("most", "runners", "waiting")

    def __init__(self, k: int) -> None:
        self.most = min(_MOST_QUERIES, _MOST_HITS // max(k, 1))
        self.waiting: deque[_Waiting] = deque()
        self.runners = 0

    def take(self) -> list[_Waiting]:
        """The first that wait, as many as one search may have."""
        taken: list[_Waiting] = []
        queries = 0
        while self.waiting:
            queries += self.waiting[0].queries
            if taken and queries > self.most:
                break
            taken.append(self.waiting.popleft())
        return taken


class SearchLine:
    """Has threads of a pool search, for calls that are answered later.

    Args:
        searching: Answers searches.
        pool: Threads that search.
        backlog: Searches that may wait; further ones are refused.
        cores: Searches of one kind at the same time; by default one for each usable core.
    """

    def __init__(
        self,
        searching: SearchCalls,
        pool: Executor,
        *,
        backlog: int = 1024,
        cores: int | None = None,
    ) -> None:
        self._searching = searching
        self._pool = pool
        self._backlog = backlog
        self._cores = cores or usable_cores()
        self._lock = threading.Lock()
        self._groups: dict[Hashable, _Group] = {}
        self._waiting = 0

    def put(self, request: index_pb2.SearchRequest, call: Call) -> None:
        """Take up a search and return at once."""
        alike = _alike(request)
        if alike is None:
            self._pool.submit(self._alone, request, call)
            return
        waiting = _Waiting(request, call, request.vectors.shape[0])
        with self._lock:
            if self._waiting >= self._backlog:
                self._pool.submit(call.fail, QueueFull(_FULL))
                return
            group = self._groups.get(alike) or _Group(request.k)
            self._groups[alike] = group
            group.waiting.append(waiting)
            self._waiting += 1
            is_runner = group.runners < self._cores
            group.runners += is_runner
        if is_runner:
            self._pool.submit(self._run, alike, group)

    def _run(self, alike: Hashable, group: _Group) -> None:
        """Search until nothing of a group waits."""
        try:
            while taken := self._taken(alike, group):
                if is_shedding():
                    for waiting in taken:
                        waiting.call.fail(QueueFull(_FULL))
                else:
                    self._answer(taken)
        except BaseException:
            self._pool.submit(self._run, alike, group)  # for those that still wait
            raise

    def _taken(self, alike: Hashable, group: _Group) -> list[_Waiting]:
        """What to search for now; nothing once this runner is no longer needed."""
        with self._lock:
            taken = group.take()
            self._waiting -= len(taken)
            if not taken:
                group.runners -= 1
                if not group.runners:
                    del self._groups[alike]
        return taken

    def _answer(self, taken: Sequence[_Waiting]) -> None:
        patient: list[_Asked] = []
        for request, call, _ in taken:
            one = _Asked(request, call, patience_of(call))
            if one.patience.is_over:
                self._answer_alone(one)  # which tells its caller
            else:
                patient.append(one)
        if len(patient) > 1 and self._answer_together(patient):
            return
        for one in patient:
            self._answer_alone(one)

    def _answer_together(self, asked: Sequence["_Asked"]) -> bool:
        """Make several searches as one; False, with nothing answered, if that fails."""
        patience = _longest([one.patience for one in asked])
        try:
            replies = self._searching.found_together([one.request for one in asked], patience)
        except Exception:  # one that is refused fails all; by itself each learns why
            return False
        for one, reply in zip(asked, replies, strict=True):
            one.call.reply(reply)
        return True

    def _alone(self, request: index_pb2.SearchRequest, call: Call) -> None:
        if is_shedding():
            call.fail(QueueFull(_FULL))
        else:
            self._answer_alone(_Asked(request, call, patience_of(call)))

    def _answer_alone(self, one: "_Asked") -> None:
        try:
            one.patience.check()
            one.call.reply(self._searching.found(one.request, one.patience))
        except Exception as error:
            one.call.fail(error)


class _Asked(NamedTuple):
    """A search whose turn has come, and how long its caller waits."""

    request: index_pb2.SearchRequest
    call: Call
    patience: Patience


def _alike(request: index_pb2.SearchRequest) -> Hashable | None:
    """What searches that may be made as one have in common; None for one that stays alone."""
    tensor = request.vectors
    shape = tensor.shape
    is_plain = (
        tensor.dtype == tensor_pb2.FLOAT32
        and len(shape) == 2
        and 0 < shape[0] <= _MOST_QUERIES // 2
        and len(tensor.data) == 4 * shape[0] * shape[1]
        and not (request.filter or request.offset or request.group_by or request.group_size)
        and not request.HasField("score_threshold")
    )
    if not is_plain:
        return None
    return (
        request.collection,
        request.model_digest,
        shape[0] > _FEW_QUERIES,
        shape[1],
        request.k,
        request.with_payload,
        request.with_vectors,
        request.params.SerializeToString(),
    )


def _longest(patiences: Sequence[Patience]) -> Patience:
    """Patience for what several callers wait for."""
    left = [patience.left_s for patience in patiences]
    limited = [seconds for seconds in left if seconds is not None]
    return Patience(max(limited) if len(limited) == len(left) else None)
