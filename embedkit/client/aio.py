"""The asyncio client: the methods of the synchronous one, each a coroutine."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from embedkit.client.channel import (
    EMBED_STREAM,
    ENDED,
    IN_FLIGHT,
    OPTIONS,
    Stubs,
    check_address,
    credentials,
    final,
    refuse,
)
from embedkit.client.images import ImageInput
from embedkit.client.index.aio import IndexCalls
from embedkit.client.inference import (
    OnError,
    Outputs,
    Question,
    SeenModels,
    embeddings_of,
    infer,
)
from embedkit.client.line import AioLine
from embedkit.client.messages import (
    Call,
    ModelInfo,
    Plan,
    ServerInfo,
    list_models,
    load_model,
    unload_model,
)
from embedkit.client.meter import Meter
from embedkit.client.retry import Attempts, RetryPolicy
from embedkit.client.tls import TlsChoice, open_channel
from embedkit.client.window import Refused, Window, bulk_plans
from embedkit.errors import EmbedkitError
from embedkit.types import Embeddings, Usage
from embedkit.wire.status import from_rpc_error, retry_delay_s

__all__ = ["Client", "connect"]

Result = TypeVar("Result")


def connect(
    address: str,
    *,
    timeout_s: float | None = 60.0,
    retry_s: float = 10.0,
    token: str | None = None,
    tls: TlsChoice = False,
) -> "Client":
    """Return an asyncio client; to be called, and used, in a running event loop.

    The arguments are those of ``embedkit.connect``.
    """
    return Client(address, RetryPolicy(timeout_s, retry_s), token=token, tls=tls)


class Client(IndexCalls):
    """A connection to one server, for one event loop; see ``embedkit.client.sync.Client``."""

    def __init__(
        self,
        address: str,
        policy: RetryPolicy | None = None,
        *,
        token: str | None = None,
        tls: TlsChoice = False,
    ) -> None:
        self._policy = policy or RetryPolicy()
        self._metadata = credentials(token)
        self._channel = open_channel(grpc.aio, check_address(address), tls, OPTIONS)
        self._stubs = Stubs(self._channel)
        self._meter = Meter()
        self._seen = SeenModels()
        self._server: ServerInfo | None = None
        self._is_closed = False

    async def embed(
        self,
        images: ImageInput,
        model: str = "",
        *,
        version: str = "",
        dims: int = 0,
        on_error: OnError = "raise",
    ) -> Embeddings:
        """Return L2-normalised embeddings, (n, d) float32, in the order given."""
        outputs = await self.infer(
            images, model, version=version, dims=dims, on_error=on_error, outputs=("embedding",)
        )
        return embeddings_of(outputs)

    async def embed_stream(
        self,
        batches: Iterable[ImageInput],
        model: str = "",
        *,
        version: str = "",
        dims: int = 0,
        on_error: OnError = "raise",
    ) -> AsyncIterator[Embeddings]:
        """Embed batch after batch on one stream; yields the embeddings of each, in order.

        Batches are taken on a thread, so that they may be read from files.
        """
        question = Question(model, version, ("embedding",), dims, on_error)
        window = Window(bulk_plans(batches, question, await self.server()))
        async for outputs in self._stream(window):
            self._seen.check(model, version, outputs.digest)
            yield embeddings_of(outputs)

    async def infer(
        self,
        images: ImageInput,
        model: str = "",
        *,
        version: str = "",
        outputs: Sequence[str] = ("embedding",),
        dims: int = 0,
        on_error: OnError = "raise",
    ) -> Outputs:
        """Return any of the outputs ``embedding features tokens ood_score class``."""
        question = Question(model, version, tuple(outputs), dims, on_error)
        result = await self.run(infer(images, question, await self.server()))
        self._seen.check(model, version, result.digest)
        return result

    async def models(self) -> tuple[ModelInfo, ...]:
        """Every model that the server has loaded."""
        self._server = await self.run(list_models())
        return self._server.models

    async def load_model(self, name: str, version: str = "") -> ModelInfo:
        """Have the server load a version from its models folder; needs the admin token."""
        return await self.run(load_model(name, version))

    async def unload_model(self, name: str, version: str = "") -> None:
        """Have the server give a version up; needs the admin token."""
        await self.run(unload_model(name, version))

    @property
    def usage(self) -> Usage:
        """What this client has asked so far."""
        return self._meter.usage

    async def server(self) -> ServerInfo:
        """What the server has and accepts, asked once."""
        if self._server is None:
            self._server = await self.run(list_models())
        return self._server

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._is_closed = True
        await self._channel.close()

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def run(self, plan: Plan[Result]) -> Result:
        """Send a plan's requests in order, several under way, and return its result."""
        if self._is_closed:
            refuse()
        calls = iter(plan.calls)
        replies: list[Message] = []
        sent: deque[asyncio.Task[Message]] = deque()
        try:
            # Making a request may read files, which must not stop the event loop.
            while (call := await asyncio.to_thread(next, calls, None)) is not None:
                if len(sent) >= IN_FLIGHT:
                    replies.append(await sent.popleft())
                sent.append(asyncio.ensure_future(self._answer(call)))
            while sent:
                replies.append(await sent.popleft())
        finally:
            for task in sent:
                task.cancel()
            await asyncio.gather(*sent, return_exceptions=True)
        return plan.read(replies)

    async def _stream(
        self, window: Window[Result], method: str = EMBED_STREAM
    ) -> AsyncIterator[Result]:
        """Send the requests of many plans on one stream; yields their results in order."""
        line: AioLine | None = None
        try:
            while True:
                # Making a request may read files, which must not stop the event loop.
                while (call := await asyncio.to_thread(window.begin)) is not None:
                    self._meter.sent(call)
                    line = line or self._open_line(method)
                    line.send(call.request)
                for result in window.results():
                    yield result
                if window.is_over:
                    return
                if line is None or not window.under_way:
                    continue  # the results that were taken made room for further requests
                refused, has_ended = await self._listen(line, window)
                if has_ended:
                    line = None
                for number, one in enumerate(refused):
                    window.finish(one.call, await self._recover(one, number == 0))
        finally:
            if line is not None:
                line.close()

    def _open_line(self, name: str) -> AioLine:
        if self._is_closed:
            refuse()
        method = self._stubs.stream(name)
        return AioLine(lambda requests: method(requests, metadata=self._metadata))

    async def _listen(
        self, line: AioLine, window: Window[Result]
    ) -> tuple[tuple[Refused, ...], bool]:
        """Wait for a reply; returns what must be recovered, and whether the stream is over."""
        try:
            reply = await line.receive(self._policy.timeout_s)
        except grpc.RpcError as failure:
            if self._is_closed:
                refuse()
            error, wanted_s = from_rpc_error(failure), retry_delay_s(failure)
            if failure.code() is grpc.StatusCode.INTERNAL:
                # The library says so when a stream breaks under a request that is being sent;
                # the server fails single requests only.
                error = ENDED
            return window.refused(error, wanted_s), True
        if reply is None:
            return window.refused(ENDED, None), True
        refused = window.read(reply)
        return () if refused is None else (refused,), False

    async def _recover(self, refused: Refused, waits: bool) -> Message:
        """Repeat by itself a request that a stream did not answer, or end it."""
        attempts = Attempts(self._policy)
        try:
            pause_s = attempts.pause_s(refused.error, refused.wanted_s)
        except EmbedkitError as last:
            return final(refused.call, last)
        self._meter.retried()
        if waits:
            await asyncio.sleep(pause_s)
        return await self._try(refused.call, attempts)

    async def _answer(self, call: Call) -> Message:
        """Send a request and repeat it where that helps."""
        self._meter.sent(call)
        return await self._try(call, Attempts(self._policy))

    async def _try(self, call: Call, attempts: Attempts) -> Message:
        while True:
            try:
                return await self._stubs.method(call)(
                    call.request, timeout=attempts.timeout_s(), metadata=self._metadata
                )
            except grpc.RpcError as failure:
                error = from_rpc_error(failure)
                wanted_s = retry_delay_s(failure)
            try:
                pause_s = attempts.pause_s(error, wanted_s)
            except EmbedkitError as last:
                return final(call, last)
            self._meter.retried()
            await asyncio.sleep(pause_s)
