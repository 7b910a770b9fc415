"""The server: engine, services, health and metrics behind one address, started and drained."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from embedkit.errors import DeadlineExceeded, Unavailable
from embedkit.retrieve.stores.local import LocalStore
from embedkit.serve.access.auth import Access
from embedkit.serve.access.exposure import warn_of_exposure
from embedkit.serve.access.tls import server_credentials
from embedkit.serve.config import ServerConfig
from embedkit.serve.engine import Engine, choose_bundles
from embedkit.serve.handlers import HandlerPool
from embedkit.serve.loaded import LoadedModel
from embedkit.serve.observe.logs import AccessLog
from embedkit.serve.observe.metrics import Gauge, Metrics
from embedkit.serve.observe.recall import RecallWatch
from embedkit.serve.observe.record import CallRecord
from embedkit.serve.observe.sideport import SidePort
from embedkit.serve.observe.tracing import Tracing
from embedkit.serve.running.watch import Watch
from embedkit.serve.services.embedding import EmbeddingServicer, add_embedding_service
from embedkit.serve.services.guard import Guard
from embedkit.serve.services.index import add_index_service
from embedkit.serve.services.model import ModelServicer
from embedkit.serve.services.stream import StreamLimits
from embedkit.types import Collection
from embedkit.wire.proto import (
    embedding_pb2,
    index_pb2,
    model_pb2,
    model_pb2_grpc,
)

__all__ = ["Server", "ServerConfig", "running_server"]

log = logging.getLogger(__name__)

# The transport lets this much more in, so that the refusal is ours, with its reason.
_TRANSPORT_MARGIN_BYTES = 1 << 20
_FAILED_START_GRACE_S = 5.0


class Server:
    """An embedkit server in this process.

    Args:
        config: What to serve, and where.
        tracing: Begins the span of each call; it is stopped with the server.
    """

    def __init__(self, config: ServerConfig, tracing: Tracing | None = None) -> None:
        self.config = config
        self._tracing = tracing
        self._recall = RecallWatch(lambda: self._store, every_s=config.recall_s)
        self.metrics = Metrics(self._gauges())
        self.engine = Engine(config.engine, self.metrics.add)
        self._access = AccessLog(config.access_log)
        self._sideport: SidePort | None = None
        self._store: LocalStore | None = None
        self._stopped = threading.Event()
        self._pool = HandlerPool(config.handlers, config.backlog)
        # Files of streams are decoded here, so that they never wait before those of calls.
        self._stream_pool = ThreadPoolExecutor(
            self.engine.decode_threads, thread_name_prefix="stream-decode"
        )
        limit = config.max_message_bytes + _TRANSPORT_MARGIN_BYTES
        self._grpc = grpc.server(
            self._pool,
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._guard = Guard(
            self._grpc,
            max_message_bytes=config.max_message_bytes,
            pool=self._pool,
            limits=StreamLimits(
                config.max_streams, config.stream_window, config.max_message_bytes
            ),
            access=Access(config.auth),
            record=self._record,
            tracing=tracing,
        )
        self._health = health.HealthServicer()
        self._is_serving = False
        self._watch = Watch(
            lambda: self.engine.models,
            self._follow,
            every_s=config.canary_s,
            limit_s=config.canary_limit_s,
        )

    def start(self) -> int:
        """Load the models, open the port, report SERVING.

        Returns:
            The port.

        Raises:
            NotFound, BundleDamaged: If a model cannot be loaded.
            Unavailable: If the address cannot be bound.
        """
        try:
            return self._start()
        except BaseException:
            with contextlib.suppress(DeadlineExceeded):  # the first error says more
                self.stop(_FAILED_START_GRACE_S)
            raise

    def _start(self) -> int:
        for path in choose_bundles(self.config.models, self.config.load):
            self.engine.load(path)
        self._add_services()
        port = _bind(self._grpc, self.config)
        if self.config.metrics_bind != "off":
            self._sideport = SidePort(
                self.config.metrics_bind,
                metrics=self.metrics.render,
                is_ready=lambda: self._is_serving,
            )
        warn_of_exposure(self.config.bind, self.config.auth, self.config.tls)
        self._guard.start()
        self._follow(True)
        if self.config.canary_s:
            self._watch.start()
        self._recall.start()
        return port

    def stop(self, grace_s: float | None = None) -> None:
        """Report NOT_SERVING, refuse new calls, let running ones finish, end every thread.

        Args:
            grace_s: Seconds until running calls are cut off; by default the config's.
        """
        if self._stopped.is_set():
            return
        grace = self.config.grace_s if grace_s is None else grace_s
        with contextlib.ExitStack() as ends:  # from the last to the first, whatever fails
            ends.callback(self._stopped.set)
            if self._tracing is not None:
                ends.callback(self._tracing.stop)
            ends.callback(self._pool.shutdown, wait=False)
            ends.callback(self._stream_pool.shutdown, wait=False)
            ends.callback(self._guard.stop)
            if self._sideport is not None:
                ends.callback(self._sideport.stop)
            if self._store is not None:
                ends.callback(self._store.close)
            ends.callback(self._recall.stop)
            ends.callback(self.engine.close, grace)
            began = time.monotonic()
            self._watch.stop()
            self._follow(False)
            self._guard.drain(grace)
            left = max(0.0, grace - (time.monotonic() - began))
            self._grpc.stop(left).wait()

    def wait(self) -> None:
        """Block until the server has stopped."""
        self._stopped.wait()

    @property
    def metrics_address(self) -> str:
        """Where ``/metrics`` is, or empty."""
        return self._sideport.address if self._sideport is not None else ""

    def _record(self, record: CallRecord) -> None:
        self.metrics.add(record)
        self._access.call(record)

    def _collections(self) -> list[Collection]:
        return [] if self._store is None else list(self._store.collections())

    def _gauges(self) -> tuple[Gauge, ...]:
        def per_model(
            read: Callable[[LoadedModel], float],
        ) -> Callable[[], list[tuple[tuple[str, ...], float]]]:
            return lambda: [((m.name, m.version), read(m)) for m in self.engine.models]

        model = ("model", "version")
        return (
            Gauge(
                "embedkit_queue_items",
                "Images that wait.",
                model,
                per_model(lambda m: m.worker.batcher.queued_images),
            ),
            Gauge(
                "embedkit_queue_bytes",
                "Bytes of pixels that wait.",
                model,
                per_model(lambda m: m.worker.batcher.queued_bytes),
            ),
            Gauge(
                "embedkit_engine_restarts",
                "Times that a stuck engine was restarted.",
                model,
                per_model(lambda m: m.crew.restarts),
            ),
            Gauge(
                "embedkit_active_provider",
                "Execution provider of each model.",
                (*model, "provider"),
                lambda: [((m.name, m.version, m.provider), 1.0) for m in self.engine.models],
            ),
            Gauge(
                "embedkit_streams",
                "Streams that run.",
                (),
                lambda: [((), self._guard.streams)],
            ),
            Gauge(
                "embedkit_index_vectors",
                "Vectors in each collection.",
                ("collection",),
                lambda: [((c.name,), c.count) for c in self._collections()],
            ),
            Gauge(
                "embedkit_index_recall_at_k",
                "Share of true neighbours that searches find, when measured last.",
                ("collection", "k"),
                self._recall.values,
            ),
        )

    def _add_services(self) -> None:
        config = self.config
        unary, streamed = (
            EmbeddingServicer(
                self.engine,
                pool=pool,
                max_images=config.max_images,
                count_items=self.metrics.add,
            )
            for pool in (self._pool, self._stream_pool)
        )
        add_embedding_service(self._guard, unary, streamed)
        if config.oip:
            self._add_inference_service()
        model_pb2_grpc.add_ModelServiceServicer_to_server(  # type: ignore[no-untyped-call]
            ModelServicer(
                self.engine,
                models=config.models,
                max_message_bytes=config.max_message_bytes,
                max_images=config.max_images,
            ),
            self._guard,
        )
        self._store = LocalStore(config.data_dir, index_device=config.index_device)
        add_index_service(
            self._guard,
            self._store,
            self.engine.embed,
            pool=self._pool,
            backlog=config.backlog,
            answer_bytes=config.max_message_bytes,
            max_images=config.max_images,
            count_items=self.metrics.add,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if config.reflection:
            names = (*self._service_names(), health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._guard)

    def _add_inference_service(self) -> None:
        # Its stubs are loaded only where they are served: see there.
        from embedkit.serve import oip

        servicer = oip.InferenceServicer(
            self.engine,
            pool=self._pool,
            max_images=self.config.max_images,
            is_ready=lambda: self._is_serving,
            count_items=self.metrics.add,
        )
        oip.add_inference_service(self._guard, servicer)

    def _service_names(self) -> tuple[str, ...]:
        files = (embedding_pb2, model_pb2, index_pb2)
        ours = tuple(
            service.full_name
            for file in files
            for service in file.DESCRIPTOR.services_by_name.values()
        )
        return (*ours, "inference.GRPCInferenceService") if self.config.oip else ours

    def _follow(self, is_well: bool) -> None:
        """Have health say whether the models answer."""
        answers = health_pb2.HealthCheckResponse
        status = answers.SERVING if is_well else answers.NOT_SERVING
        self._is_serving = is_well
        for name in (health.OVERALL_HEALTH, *self._service_names()):
            self._health.set(name, status)


@contextlib.contextmanager
def running_server(
    *, models: str | Path, data_dir: str | Path, config: ServerConfig | None = None
) -> Iterator[str]:
    """Serve in this process on a free port of the loopback interface; for tests and demos.

    Args:
        models: Folder of bundles.
        data_dir: Folder of the collections.
        config: Other settings; its models, data_dir and bind are not used.

    Yields:
        The address, ``127.0.0.1:PORT``.
    """
    here = replace(
        config or ServerConfig(),
        models=Path(models),
        data_dir=Path(data_dir),
        bind="127.0.0.1:0",
    )
    server = Server(here)
    try:
        yield f"127.0.0.1:{server.start()}"
    finally:
        server.stop(5.0)


def _bind(server: grpc.Server, config: ServerConfig) -> int:
    credentials = None if config.tls is None else server_credentials(config.tls)
    try:
        if credentials is None:
            port: int = server.add_insecure_port(config.bind)
        else:
            port = server.add_secure_port(config.bind, credentials)
    except RuntimeError as error:
        raise Unavailable(f"expected to bind {config.bind}, got: {error}") from error
    return port
