"""``embedkit serve``: bundles behind gRPC until SIGTERM."""

import gc
import json
import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Unpack

import click

from embedkit.cli.options.access import AccessOptions, with_access
from embedkit.cli.options.serve import Options, with_options
from embedkit.errors import NotFound

if TYPE_CHECKING:
    from embedkit.serve.observe.tracing import Tracing
    from embedkit.serve.server import Server, ServerConfig

__all__ = ["command"]


@click.command(name="serve", context_settings={"show_default": True})
@with_options
@with_access
def command(access: AccessOptions, /, **options: Unpack[Options]) -> None:
    """Serve bundles over gRPC.

    When ready, one line of JSON with "event": "ready" and the address is printed; logs go to
    standard error. SIGTERM or Ctrl-C drains: running calls finish, new ones are refused, and
    the exit code is 0.
    """
    began = time.monotonic()
    # Sockets are read and written by the thread that handles calls, not by three more that hand
    # over to it (docs/performance.md has what that saves). Read once, when gRPC is imported.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    from embedkit.serve.engine import choose_bundles
    from embedkit.serve.observe.logs import configure_logging
    from embedkit.serve.server import Server

    configure_logging(options["log_format"])
    _allow_open_files()
    config = _config(options, access)
    if not choose_bundles(config.models, config.load):  # before anything is written
        raise NotFound(
            f"expected at least one bundle in {options['models']}, got none; "
            "make one with 'embedkit export'"
        )
    server = Server(config, _tracing(options["otlp"]))
    asked = _watch_signals()
    port = server.start()
    # What is loaded now stays; a full collection would look at all of it during some call.
    gc.collect()
    gc.freeze()
    # Requests leave no cycles behind; looking for some every 700 objects costs time.
    gc.set_threshold(20_000, 20, 50)
    _announce(server, port, time.monotonic() - began)
    asked.wait()
    server.stop()


def _allow_open_files() -> None:
    """Let the process open as many files as the system allows: a collection keeps about five.

    The usual 1,024 are a limit for programs that cannot handle more, not for this one.
    """
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems refuse "unlimited"; then it stays.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tracing(endpoint: str) -> "Tracing | None":
    from embedkit.serve.observe.tracing import is_wanted

    if not is_wanted(endpoint):
        return None
    from embedkit.serve.observe.otel import open_tracing

    return open_tracing(endpoint)


def _config(options: Options, access: AccessOptions) -> "ServerConfig":
    from embedkit.serve.batcher import BatchLimits
    from embedkit.serve.config import ServerConfig
    from embedkit.serve.engine import EngineConfig

    limits = BatchLimits(
        max_batch_size=options["max_batch"],
        max_queue_images=max(options["queue_images"], options["max_batch"]),
        max_queue_bytes=options["queue_mb"] << 20,
        window_s=options["window_ms"] / 1e3,
        bulk_share=options["bulk_share"],
    )
    return ServerConfig(
        models=options["models"],
        data_dir=options["data_dir"],
        index_device=options["index_device"],
        bind=options["bind"],
        metrics_bind=options["metrics_bind"],
        load=options["load"],
        engine=EngineConfig(
            limits,
            options["threads"],
            options["decode_threads"],
            options["max_pixels"],
            options["sessions"],
            options["provider"],
            options["allow_cpu_fallback"],
            options["precision"],
        ),
        max_message_bytes=options["max_message_mb"] << 20,
        max_images=options["max_images"],
        max_streams=options["max_streams"],
        stream_window=options["stream_window"],
        auth=access.auth(),
        tls=access.tls(),
        grace_s=options["grace_s"],
        canary_s=options["canary_s"],
        canary_limit_s=options["canary_limit_s"],
        recall_s=options["recall_s"],
        access_log=options["access_log"],
        reflection=options["reflection"],
        oip=options["oip"],
    )


def _watch_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets; a second one ends the process at once."""
    asked = threading.Event()

    def ask(number: int, _: object) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return asked


def _announce(server: "Server", port: int, seconds: float) -> None:
    """Print the one line that scripts wait for."""
    bind = server.config.bind
    address = bind if bind.startswith("unix:") else f"{bind.rpartition(':')[0]}:{port}"
    line = {
        "event": "ready",
        "address": address,
        "metrics": server.metrics_address or None,
        "models": [f"{model.name}:{model.version}" for model in server.engine.models],
        "precision": server.config.engine.precision,
        "provider": sorted({model.provider for model in server.engine.models}),
        "sessions": server.config.engine.sessions,
        "threads": server.engine.threads,
        "decode_threads": server.engine.decode_threads,
        "seconds": round(seconds, 3),
    }
    click.echo(json.dumps(line))
