"""Bulk embedding on one stream, with both clients: order, memory, retries, ends."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from embedkit.client import aio, sync
from embedkit.errors import (
    BadImage,
    Cancelled,
    DeadlineExceeded,
    EmbedkitError,
    ModelChanged,
    NotFound,
    QueueFull,
    Unavailable,
)
from embedkit.wire.proto import embedding_pb2

Embed = Callable[..., list[np.ndarray]]
"""Embeds batches on a stream of a new client; ``stop`` ends it after so many results."""


@pytest.fixture(params=["sync", "aio"])
def embed(request: pytest.FixtureRequest, address: str) -> Embed:
    def by_sync(batches: Iterable, *, stop: int = 1 << 30, **options: Any) -> list:
        connection, options = split(options)
        found: list[np.ndarray] = []
        with sync.connect(address, **connection) as client:
            stream = client.embed_stream(batches, **options)
            for rows in stream:
                found.append(rows)
                if len(found) == stop:
                    stream.close()
        return found

    def by_aio(batches: Iterable, *, stop: int = 1 << 30, **options: Any) -> list:
        connection, options = split(options)

        async def run() -> list[np.ndarray]:
            found: list[np.ndarray] = []
            async with aio.connect(address, **connection) as client:
                stream = client.embed_stream(batches, **options)
                async for rows in stream:
                    found.append(rows)
                    if len(found) == stop:
                        await stream.aclose()
            return found

        return asyncio.run(run())

    return by_sync if request.param == "sync" else by_aio


def split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the connection, and those of the method."""
    names = ("timeout_s", "retry_s", "token")
    connection = {name: options.pop(name) for name in names if name in options}
    return connection, options


def batches_of(rng: np.random.Generator, *sizes: int) -> list[np.ndarray]:
    return [rng.integers(0, 256, (size, 2, 2, 1), dtype=np.uint8) for size in sizes]


def check(found: list[np.ndarray], batches: list, embeddings_of: Callable) -> None:
    assert [len(rows) for rows in found] == [len(batch) for batch in batches]
    for rows, batch in zip(found, batches, strict=True):
        if len(batch):
            np.testing.assert_allclose(rows, embeddings_of(batch), rtol=1e-6)


def test_one_late_answer_before_many_is_waited_for_and_the_rest_is_sent(
    embed, script, rng, embeddings_of
) -> None:
    # The window is full of finished batches then, and nothing at all is under way.
    script.first_waits_for = 8
    batches = batches_of(rng, *[2] * 30)
    check(embed(iter(batches)), batches, embeddings_of)


def test_batches_come_back_in_order_on_one_stream(embed, script, rng, embeddings_of) -> None:
    # 200 images are four messages of this server's 64.
    batches = batches_of(rng, 3, 200, 1, 0, *[5] * 30)
    check(embed(iter(batches), token="secret"), batches, embeddings_of)
    assert script.streams == 1
    assert script.metadata["authorization"] == "Bearer secret"
    assert {r.priority for r in script.requests} == {embedding_pb2.BULK}
    assert script.most_at_once == 0


def test_nothing_is_sent_for_no_batches(embed, script) -> None:
    assert embed([]) == []
    assert script.streams == 0


def test_batches_are_taken_a_few_ahead_only(embed, rng) -> None:
    taken = 0

    def batches() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield rng.integers(0, 256, (2, 2, 2, 1), dtype=np.uint8)

    assert len(embed(batches(), stop=5)) == 5
    assert taken < 5 + 20


def test_options_are_those_of_embed(embed, script, rng) -> None:
    (rows,) = embed(batches_of(rng, 4), model="m", dims=2)
    assert rows.shape == (4, 2)
    (rows,) = embed([[b"good", b"bad"]], on_error="nan")
    assert np.isnan(rows[1]).all()
    assert np.isfinite(rows[0]).all()
    (rows,) = embed([[b"bad"]], on_error="nan")
    assert np.isnan(rows).all()


def test_a_bad_image_ends_the_stream_after_the_batches_before_it(embed, script) -> None:
    found: list[np.ndarray] = []

    def batches() -> Iterator[list[bytes]]:
        yield [b"good"]
        yield [b"good", b"bad"]

    with pytest.raises(BadImage, match="image 1"):
        found.extend(embed(batches()))
    assert script.ended.wait(5)


@pytest.mark.parametrize("error", [QueueFull("full"), Unavailable("draining")])
def test_a_refused_request_is_repeated_by_itself(
    embed, script, rng, embeddings_of, error
) -> None:
    script.failures = [error]
    batches = batches_of(rng, *[3] * 12)
    check(embed(batches), batches, embeddings_of)
    assert script.streams == 1
    assert script.most_at_once == 1


def test_what_no_retry_helps_is_raised(embed, script, rng) -> None:
    with pytest.raises(NotFound, match="other"):
        embed(batches_of(rng, 3), model="other")
    script.failures = [QueueFull("full")]
    with pytest.raises(QueueFull):
        embed(batches_of(rng, 3), retry_s=0)


def test_a_stream_that_breaks_is_opened_again(embed, script, rng, embeddings_of) -> None:
    script.answers_per_stream = 12
    batches = batches_of(rng, *[3] * 50)
    check(embed(batches), batches, embeddings_of)
    assert script.streams > 1


def test_a_model_that_changes_is_noticed(embed, script, rng) -> None:
    def batches() -> Iterator[np.ndarray]:
        yield from batches_of(rng, *[3] * 20)
        script.digest = "sha256:two"
        yield from batches_of(rng, *[3] * 20)

    with pytest.raises(ModelChanged):
        embed(batches())


def test_silence_ends_with_the_timeout(embed, script, rng) -> None:
    script.is_silent = True
    with pytest.raises(DeadlineExceeded, match=r"0\.3 s"):
        embed(batches_of(rng, 3), timeout_s=0.3)
    assert script.ended.wait(5)


def test_who_stops_early_cancels_what_is_under_way(embed, script, rng) -> None:
    assert len(embed(batches_of(rng, *[3] * 50), stop=1)) == 1
    assert script.ended.wait(5)
    assert len(script.requests) < 50


def test_a_closed_client_says_so(address, rng) -> None:
    client = sync.connect(address)
    stream = client.embed_stream(iter(batches_of(rng, *[3] * 50)))
    next(stream)
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        list(stream)
    with pytest.raises(EmbedkitError):
        next(client.embed_stream(batches_of(rng, 3)))
