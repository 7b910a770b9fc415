"""``embedkit serve``: bundles behind gRPC until SIGTERM."""

import gc
import json
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import click

from embedkit.cli.serve_access import AccessOptions, with_access
from embedkit.errors import NotFound

if TYPE_CHECKING:
    from embedkit.serve.observe.tracing import Tracing
    from embedkit.serve.server import Server, ServerConfig

__all__ = ["command"]

_FOLDER = click.Path(file_okay=False, path_type=Path)


class Options(TypedDict):
    """The options of the command, as click hands them over."""

    models: Path
    data_dir: Path
    bind: str
    metrics_bind: str
    load: tuple[str, ...]
    max_batch: int
    window_ms: float
    bulk_share: float
    queue_images: int
    queue_mb: int
    threads: int
    decode_threads: int
    sessions: int
    provider: str
    allow_cpu_fallback: bool
    max_message_mb: int
    max_images: int
    max_streams: int
    stream_window: int
    max_pixels: int
    grace_s: float
    canary_s: float
    canary_limit_s: float
    access_log: Literal["all", "errors", "off"]
    log_format: Literal["json", "text"]
    reflection: bool
    oip: bool
    otlp: str


@click.command(name="serve", context_settings={"show_default": True})
@click.option("--models", type=_FOLDER, default="models", help="Folder of all models.")
@click.option("--data-dir", type=_FOLDER, default="var", help="Folder of the collections.")
@click.option("--bind", default="127.0.0.1:50051", help="HOST:PORT, or unix:PATH; port 0: any.")
@click.option("--metrics-bind", default="127.0.0.1:9090", help="HOST:PORT of /metrics, or off.")
@click.option(
    "--load",
    metavar="NAME[:VERSION]",
    multiple=True,
    help="Serve this model; repeat for several.  [default: the latest version of each]",
)
@click.option("--max-batch", type=click.IntRange(1), default=64, help="Images per batch.")
@click.option(
    "--window-ms",
    type=click.FloatRange(0),
    default=0.0,
    help="Wait for a fuller batch, from its first request; 0 never waits.",
)
@click.option(
    "--bulk-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    help="Part of the images that BULK requests get while INTERACTIVE ones wait too.",
)
@click.option(
    "--queue-images", type=click.IntRange(1), default=4096, help="Images that may wait."
)
@click.option(
    "--queue-mb", type=click.IntRange(1), default=256, help="MiB of pixels that may wait."
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    help="Threads per session; 0: the cores, shared among the sessions.",
)
@click.option(
    "--decode-threads",
    type=click.IntRange(0),
    default=0,
    help="Image files decoded at a time; 0: one per core.",
)
@click.option(
    "--sessions",
    type=click.IntRange(1),
    default=1,
    help="Batches of a model that run at the same time, each in a session of its own.",
)
@click.option(
    "--provider",
    default="cpu",
    metavar="cpu|cuda|tensorrt|NAME",
    help="What runs the models; NAME is onnxruntime's.  A missing one is an error.",
)
@click.option(
    "--allow-cpu-fallback",
    is_flag=True,
    help="Run on the CPU, with a warning, where the provider is missing.",
)
@click.option("--max-message-mb", type=click.IntRange(1), default=32, help="MiB of a request.")
@click.option("--max-images", type=click.IntRange(1), default=1024, help="Images in one call.")
@click.option("--max-streams", type=click.IntRange(0), default=64, help="Streams at a time.")
@click.option(
    "--stream-window",
    type=click.IntRange(1),
    default=16,
    help="Requests under way in one stream; no further one is read meanwhile.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=89_478_485,
    help="Pixels that an image file may declare.",
)
@click.option(
    "--grace-s",
    type=click.FloatRange(0),
    default=30.0,
    help="Seconds that running calls get at the end.",
)
@click.option(
    "--canary-s",
    type=click.FloatRange(0),
    default=10.0,
    help="Seconds between two test images, which health follows; 0 sends none.",
)
@click.option(
    "--canary-limit-s",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    help="Restart a model that is stuck for so long.",
)
@click.option(
    "--access-log",
    type=click.Choice(["all", "errors", "off"]),
    default="errors",
    help="Calls to log.",
)
@click.option(
    "--log-format", type=click.Choice(["json", "text"]), default="text", help="One line each."
)
@click.option("--reflection/--no-reflection", default=True, help="Tell clients the schema.")
@click.option("--oip/--no-oip", default=True, help="Serve Triton and KServe clients too.")
@click.option(
    "--otlp",
    default="",
    metavar="URL",
    help="Send traces to this collector, as http://127.0.0.1:4317; or set "
    "OTEL_EXPORTER_OTLP_ENDPOINT.",
)
@with_access
def command(access: AccessOptions, /, **options: Unpack[Options]) -> None:
    """Serve bundles over gRPC.

    When ready, one line of JSON with "event": "ready" and the address is printed; logs go to
    standard error. SIGTERM or Ctrl-C drains: running calls finish, new ones are refused, and
    the exit code is 0.
    """
    began = time.monotonic()
    from embedkit.serve.observe.logs import configure_logging
    from embedkit.serve.server import Server

    configure_logging(options["log_format"])
    server = Server(_config(options, access), _tracing(options["otlp"]))
    asked = _watch_signals()
    port = server.start()
    if not server.engine.models:
        server.stop(0)
        raise NotFound(
            f"expected at least one bundle in {options['models']}, got none; "
            "make one with 'embedkit export'"
        )
    # What is loaded now stays; a full collection would look at all of it during some call.
    gc.collect()
    gc.freeze()
    # Requests leave no cycles behind; looking for some every 700 objects costs 3 % of the time.
    gc.set_threshold(20_000, 20, 50)
    _announce(server, port, time.monotonic() - began)
    asked.wait()
    server.stop()


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
        "provider": sorted({model.provider for model in server.engine.models}),
        "sessions": server.config.engine.sessions,
        "threads": server.engine.threads,
        "decode_threads": server.engine.decode_threads,
        "seconds": round(seconds, 3),
    }
    click.echo(json.dumps(line))
