"""The bookkeeping of a stream, without one."""

from collections.abc import Iterator

import pytest

from embedkit.client.messages import Call, Plan
from embedkit.client.window import Window
from embedkit.errors import EmbedkitError, QueueFull
from embedkit.wire.proto import embedding_pb2 as pb
from embedkit.wire.status import to_status


def plan(name: str, calls: int) -> Plan[str]:
    """A plan whose result names itself and the digests of its replies, in order."""
    requests = [
        Call("EmbeddingService.Embed", pb.EmbedRequest(model=name)) for _ in range(calls)
    ]
    return Plan(requests, lambda replies: name + "".join(r.model_digest for r in replies))


def begin_all(window: Window[str]) -> list[Call]:
    return list(iter(window.begin, None))


def reply(call: Call, digest: str = "") -> pb.EmbedResponse:
    return pb.EmbedResponse(request_id=call.request.request_id, model_digest=digest)


def test_results_are_in_order_whatever_the_order_of_replies() -> None:
    window = Window([plan("a", 2), plan("b", 0), plan("c", 1)])
    first, second, third = begin_all(window)
    window.read(reply(third, "3"))
    window.read(reply(second, "2"))
    assert list(window.results()) == []
    window.read(reply(first, "1"))
    assert not window.is_over
    assert list(window.results()) == ["a12", "b", "c3"]
    assert not window.under_way
    assert window.is_over


def test_every_request_has_an_id_of_its_own() -> None:
    calls = begin_all(Window([plan("a", 3), plan("b", 3)]))
    assert len({call.request.request_id for call in calls}) == 6


def test_a_slow_request_keeps_later_plans_from_piling_up() -> None:
    taken = 0

    def plans() -> Iterator[Plan[str]]:
        nonlocal taken
        while True:
            taken += 1
            yield plan("p", 1)

    window = Window(plans())
    slow, *others = begin_all(window)
    while others:
        for call in others:
            window.read(reply(call))
        assert list(window.results()) == []
        others = begin_all(window)
    assert taken < 12
    window.read(reply(slow))
    assert len(list(window.results())) == taken
    assert begin_all(window)


def test_a_refused_request_stays_under_way_until_it_is_finished() -> None:
    window = Window([plan("a", 1)])
    (call,) = begin_all(window)
    status = to_status(QueueFull("full"))
    refused = window.read(pb.EmbedResponse(request_id="1", status=status))
    assert refused is not None
    assert (refused.call, refused.wanted_s) == (call, 0.05)
    assert isinstance(refused.error, QueueFull)
    assert window.under_way == (call,)
    window.finish(call, reply(call, "!"))
    assert list(window.results()) == ["a!"]


def test_a_reply_to_no_request_is_an_error() -> None:
    window = Window([plan("a", 1)])
    begin_all(window)
    with pytest.raises(EmbedkitError, match="'7'"):
        window.read(pb.EmbedResponse(request_id="7"))
