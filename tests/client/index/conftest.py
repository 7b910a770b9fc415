"""Fixtures of this folder."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest

from embedkit.client import aio, sync
from embedkit.wire.proto.index_pb2_grpc import IndexServiceStub
from tests.client.index.ask import Ask


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest, address: str) -> Iterator[Ask]:
    """Call a method of either client; iterators come back as lists."""
    if request.param == "sync":
        with sync.connect(address) as client:
            yield partial(called, client)
        return
    with asyncio.Runner() as runner:

        async def make() -> aio.Client:
            return aio.connect(address)

        async def act(method: str, *a: Any, **k: Any) -> Any:
            found = getattr(other, method)(*a, **k)
            if hasattr(found, "__aiter__"):
                return [one async for one in found]
            return await found

        other = runner.run(make())
        yield lambda method, *a, **k: runner.run(act(method, *a, **k))
        runner.run(other.close())


def called(client: sync.Client, method: str, *a: Any, **k: Any) -> Any:
    found = getattr(client, method)(*a, **k)
    return list(found) if isinstance(found, Iterator) else found


@pytest.fixture
def one(address: str) -> Iterator[Ask]:
    """The synchronous client alone, for what takes long."""
    with sync.connect(address) as client:
        yield partial(called, client)


@pytest.fixture
def stub(address: str) -> Iterator[IndexServiceStub]:
    with grpc.insecure_channel(address) as channel:
        yield IndexServiceStub(channel)
