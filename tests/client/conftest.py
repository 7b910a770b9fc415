"""A scripted server: real gRPC and a real store behind a model that does what a test says."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from embedkit.bundle import Manifest
from embedkit.client import aio, sync
from embedkit.errors import (
    BadImage,
    EmbedkitError,
    NotFound,
    Unavailable,
)
from embedkit.preprocess import InputSpec
from embedkit.retrieve.stores.local import LocalStore
from embedkit.serve.services.failure import abort, answering
from embedkit.serve.services.guard import Guard
from embedkit.serve.services.index import add_index_service
from embedkit.types import EncodedImages, Images
from embedkit.wire.codec import decode_images, encode_tensor
from embedkit.wire.proto import (
    embedding_pb2,
    embedding_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from embedkit.wire.status import to_status
from tests.client.asking import Ask

DIM = 4


SPEC = InputSpec(height=2, width=2, channels=1)


def features_of(images: Images | EncodedImages) -> np.ndarray:
    """Features of images: four bytes of each, plus one."""
    if isinstance(images, np.ndarray):
        rows = images.reshape(len(images), -1)[:, :DIM]
    else:
        rows = np.array([np.frombuffer(i.ljust(DIM, b"\0")[:DIM], np.uint8) for i in images])
    return rows.astype(np.float32).reshape(len(images), -1) + 1


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@dataclass
class Script:
    """What the scripted model does; a test changes it while the server runs.

    Attributes:
        failures: Raised one by one before anything else is answered.
        digest: The digest that it answers with.
        outputs: The outputs that it claims to have.
        max_message_bytes: Told to clients, and held against them.
        max_images: Likewise.
        delay_s: Seconds that each Embed takes.
        requests: Every Embed request that came in, failed ones included.
        metadata: Metadata of the last call.
        most_at_once: The largest number of Embed calls that ran at the same time.
        streams: Streams that were opened.
        answers_per_stream: Answers after which a stream breaks.
        is_silent: Whether streams answer nothing.
        first_waits_for: Answers that go before that to the first request of a stream.
        ended: Set when a stream has ended.
    """

    failures: list[Exception] = field(default_factory=list)
    digest: str = "sha256:one"
    outputs: tuple[str, ...] = ("EMBEDDING", "FEATURES", "TOKENS", "OOD_SCORE", "CLASS")
    max_message_bytes: int = 8 << 20
    max_images: int = 64
    delay_s: float = 0.0
    requests: list[embedding_pb2.EmbedRequest] = field(default_factory=list)
    metadata: dict[str, str | bytes] = field(default_factory=dict)
    running: int = 0
    most_at_once: int = 0
    streams: int = 0
    answers_per_stream: int = 1 << 30
    is_silent: bool = False
    first_waits_for: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def embed(
        self,
        model: str,
        images: Images | EncodedImages,
        timeout_s: float | None,
        **_: object,
    ) -> tuple[np.ndarray, str]:
        """The EmbedCall of the index service."""
        if self.failures:
            raise self.failures.pop(0)
        for image in () if isinstance(images, np.ndarray) else images:
            if image.startswith(b"bad"):
                raise BadImage(f"expected an image, got {image!r}")
        return unit(features_of(images)), self.digest


class Embedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    @answering
    def Embed(self, request, context):  # noqa: N802
        script = self.script
        with script.lock:
            script.requests.append(request)
            script.metadata = {m.key: m.value for m in context.invocation_metadata()}
            script.running += 1
            script.most_at_once = max(script.most_at_once, script.running)
        try:
            time.sleep(script.delay_s)
            return self.answer(request)
        finally:
            with script.lock:
                script.running -= 1

    def EmbedStream(self, requests, context):  # noqa: N802
        script = self.script
        script.streams += 1
        context.add_callback(script.ended.set)
        script.metadata = {m.key: m.value for m in context.invocation_metadata()}
        left, held, behind = script.answers_per_stream, None, script.first_waits_for
        for request in requests:
            script.requests.append(request)
            if script.is_silent:
                continue
            if left == 0:
                abort(context, Unavailable("the stream breaks"))
            left -= 1
            try:
                reply = self.answer(request)
            except EmbedkitError as error:
                reply = embedding_pb2.EmbedResponse(status=to_status(error))
            reply.request_id = request.request_id
            if behind and held is None:
                held = reply
                continue
            yield reply
            behind -= held is not None
            if held is not None and not behind:
                yield held
                held = None

    def answer(self, request: embedding_pb2.EmbedRequest) -> embedding_pb2.EmbedResponse:
        script = self.script
        with script.lock:
            if script.failures:
                raise script.failures.pop(0)
        assert request.ByteSize() <= script.max_message_bytes, "a message larger than allowed"
        if request.model not in ("", "m"):
            raise NotFound(f"expected one of ['m'], got {request.model!r}")
        is_pixels = request.WhichOneof("input") == "pixels"
        images = decode_images(request.pixels) if is_pixels else list(request.encoded.data)
        assert len(images) <= script.max_images, "more images than allowed"
        bad = {i for i, b in enumerate(images) if not is_pixels and b.startswith(b"bad")}
        if bad and len(images) == 1:
            raise BadImage(f"expected an image, got {images[0]!r}")
        features = features_of(images)
        features[sorted(bad)] = 0
        return self.filled(request, features, sorted(bad))

    def filled(
        self, request: embedding_pb2.EmbedRequest, features: np.ndarray, bad: list[int]
    ) -> embedding_pb2.EmbedResponse:
        response = embedding_pb2.EmbedResponse(model_digest=self.script.digest)
        norms = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        outputs = set(request.outputs) or {embedding_pb2.EMBEDDING}
        if embedding_pb2.EMBEDDING in outputs:
            dims = request.dims or DIM
            response.embeddings.CopyFrom(encode_tensor((features / norms)[:, :dims]))
        if embedding_pb2.FEATURES in outputs:
            response.features.CopyFrom(encode_tensor(features))
        if embedding_pb2.TOKENS in outputs:
            response.tokens.CopyFrom(encode_tensor(features.reshape(-1, 2, 2)))
        if embedding_pb2.OOD_SCORE in outputs:
            response.ood_scores.CopyFrom(encode_tensor(features.sum(axis=1).astype(float)))
        if embedding_pb2.CLASS in outputs:
            response.classes.labels.CopyFrom(encode_tensor(features.argmax(axis=1)))
            chance = np.full((len(features), 3), 1 / 3, np.float32)
            response.classes.probabilities.CopyFrom(encode_tensor(chance))
            response.classes.class_names.extend(["ant", "bee", "cat"])
        for index in bad:
            response.errors.add(index=index, status=to_status(BadImage("no image")))
        return response


class Models(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def model(self) -> model_pb2.Model:
        manifest = Manifest("m", 1, SPEC, dim=DIM, outputs={"embedding": [DIM]})
        return model_pb2.Model(
            name="m",
            version="1",
            model_digest=self.script.digest,
            height=2,
            width=2,
            channels=1,
            dim=DIM,
            outputs=self.script.outputs,
            class_names=["ant", "bee", "cat"],
            provider="CPUExecutionProvider",
            precision="fp32",
            manifest_json=manifest.to_bytes().decode(),
            max_batch_size=8,
            ood_detector="knn",
            ood_threshold=0.5,
        )

    @answering
    def ListModels(self, request, context):  # noqa: N802
        return model_pb2.ListModelsResponse(
            models=[self.model()],
            max_message_bytes=self.script.max_message_bytes,
            max_images_per_request=self.script.max_images,
        )

    @answering
    def GetModel(self, request, context):  # noqa: N802
        if request.name not in ("", "m"):
            raise NotFound(f"expected one of ['m'], got {request.name!r}")
        return self.model()


@dataclass
class Running:
    """A scripted server that can be stopped and started again on its port."""

    script: Script
    folder: Path
    address: str = ""
    server: grpc.Server | None = None
    store: LocalStore | None = None

    def start(self) -> None:
        self.server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        self.store = LocalStore(self.folder)
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
            Embedding(self.script), self.server
        )
        model_pb2_grpc.add_ModelServiceServicer_to_server(Models(self.script), self.server)
        pool = ThreadPoolExecutor(4)
        guard = Guard(self.server, max_message_bytes=64 << 20, pool=pool)
        add_index_service(guard, self.store, self.script.embed, pool=pool)
        port = self.server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        guard.start()

    def stop(self) -> None:
        if self.server is not None and self.store is not None:
            self.server.stop(None).wait()
            self.store.close()
            self.server = None


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def running(script: Script, tmp_path: Path) -> Iterator[Running]:
    server = Running(script, tmp_path / "var")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def address(running: Running) -> str:
    return running.address


@pytest.fixture
def embeddings_of() -> Callable[[np.ndarray | list[bytes]], np.ndarray]:
    """What the scripted model answers."""
    return lambda images: unit(features_of(images))


@pytest.fixture(params=["sync", "aio"])
def connected(request: pytest.FixtureRequest) -> Iterator[Callable[..., Ask]]:
    """Connect with either client; ``ask(method, ...)`` calls a method and waits for it."""
    closing: list[Callable[[], None]] = []

    def connect_sync(address: str, **options: Any) -> Ask:
        client = sync.connect(address, **options)
        closing.append(client.close)
        return lambda method, *a, **k: getattr(client, method)(*a, **k)

    def connect_aio(address: str, **options: Any) -> Ask:
        runner = asyncio.Runner()
        closing.append(runner.close)

        async def make() -> aio.Client:
            return aio.connect(address, **options)

        client = runner.run(make())
        closing.append(lambda: runner.run(client.close()))

        async def act(method: str, *a: Any, **k: Any) -> Any:
            return await getattr(client, method)(*a, **k)

        return lambda method, *a, **k: runner.run(act(method, *a, **k))

    yield connect_sync if request.param == "sync" else connect_aio
    for close in reversed(closing):
        close()


@pytest.fixture
def ask(connected: Callable[..., Ask], address: str) -> Ask:
    return connected(address)
