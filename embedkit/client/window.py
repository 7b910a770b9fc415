"""The requests of many plans under way on one stream, and their results in order.

Pure bookkeeping: nothing is sent from here, so that both clients share it.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from embedkit.client.images import ImageInput
from embedkit.client.inference import Outputs, Question, infer
from embedkit.client.messages import Call, Plan, ServerInfo
from embedkit.errors import EmbedkitError
from embedkit.wire.proto import embedding_pb2
from embedkit.wire.status import from_status, status_retry_s

__all__ = ["Refused", "Window", "bulk_plans"]

Result = TypeVar("Result")

# Requests under way: enough that the server has the next batch while it runs one.
_IN_FLIGHT = 8


class Refused(NamedTuple):
    """A request that the server did not answer well.

    Attributes:
        call: The request.
        error: Why.
        wanted_s: Seconds that the server asks to wait before a repetition, or None.
    """

    call: Call
    error: EmbedkitError
    wanted_s: float | None


class _Batch(Generic[Result]):
    """A plan, and its replies as they come."""

    def __init__(self, plan: Plan[Result]) -> None:
        self.plan = plan
        self.replies: list[Message | None] = []
        self.missing = 0
        self.is_sent = False


class Window(Generic[Result]):
    """What is sent next, what is under way, and what is done.

    Memory is bounded: neither a request nor a plan is begun while too many are unfinished.

    Args:
        plans: Taken one by one, as there is room.
    """

    def __init__(self, plans: Iterable[Plan[Result]]) -> None:
        self._batches: deque[_Batch[Result]] = deque()
        self._places: dict[str, tuple[_Batch[Result], int, Call]] = {}
        self._calls = self._each(plans)
        self._number = 0
        self._has_all = False

    @property
    def under_way(self) -> tuple[Call, ...]:
        """Requests that were begun and not finished, oldest first."""
        return tuple(call for _, _, call in self._places.values())

    @property
    def is_over(self) -> bool:
        """Whether every plan was taken, and its result too."""
        return self._has_all and not self._batches

    def refused(self, error: EmbedkitError, wanted_s: float | None) -> tuple[Refused, ...]:
        """Everything under way, when the stream ends before its time."""
        return tuple(Refused(call, error, wanted_s) for call in self.under_way)

    def begin(self) -> Call | None:
        """Return the next request, with an id; None while there is no room, or at the end."""
        if len(self._places) >= _IN_FLIGHT or len(self._batches) > _IN_FLIGHT:
            return None
        return next(self._calls, None)

    def read(self, reply: Message) -> Refused | None:
        """Take a reply from the stream.

        Returns:
            The request and why it failed as a whole, if it did; it stays under way then.

        Raises:
            EmbedkitError: If the reply is to no request.
        """
        place = self._places.get(reply.request_id)
        if place is None:
            raise EmbedkitError(
                f"expected a reply to one of {list(self._places)}, got {reply.request_id!r}"
            )
        if reply.HasField("status"):
            status = reply.status
            return Refused(place[2], from_status(status), status_retry_s(status))
        self.finish(place[2], reply)
        return None

    def finish(self, call: Call, reply: Message) -> None:
        """Keep the reply to a request, wherever it came from."""
        batch, index, _ = self._places.pop(call.request.request_id)
        batch.replies[index] = reply
        batch.missing -= 1

    def results(self) -> Iterator[Result]:
        """Results of finished plans, in order, up to the first that is not finished."""
        while self._batches and self._batches[0].is_sent and not self._batches[0].missing:
            batch = self._batches.popleft()
            yield batch.plan.read([reply for reply in batch.replies if reply is not None])

    def _each(self, plans: Iterable[Plan[Result]]) -> Iterator[Call]:
        for plan in plans:
            batch = _Batch(plan)
            self._batches.append(batch)
            calls = iter(plan.calls)
            call = next(calls, None)
            while call is not None:
                # Known now, because nobody may ask for another request for a long time.
                following = next(calls, None)
                self._enter(batch, call)
                batch.is_sent = following is None
                yield call
                call = following
            batch.is_sent = True
        self._has_all = True

    def _enter(self, batch: _Batch[Result], call: Call) -> None:
        self._number += 1
        call.request.request_id = str(self._number)
        self._places[call.request.request_id] = batch, len(batch.replies), call
        batch.replies.append(None)
        batch.missing += 1


def bulk_plans(
    batches: Iterable[ImageInput], question: Question, server: ServerInfo
) -> Iterator[Plan[Outputs]]:
    """Ask a model about batches of images, one plan each; others' requests go first."""
    for images in batches:
        plan = infer(images, question, server)
        yield Plan(_as_bulk(plan.calls), plan.read)


def _as_bulk(calls: Iterable[Call]) -> Iterator[Call]:
    for call in calls:
        call.request.priority = embedding_pb2.BULK
        yield call
