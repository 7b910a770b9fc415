"""The options of ``embedkit serve`` that say what is served, how it runs and what is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

import click

from embedkit.cli.options.number import Number

__all__ = ["Options", "with_options"]

Command = TypeVar("Command", bound=Callable[..., object])

_FOLDER = click.Path(file_okay=False, path_type=Path)


class Options(TypedDict):
    """The options of the command, as click hands them over."""

    models: Path
    data_dir: Path
    index_device: Literal["auto", "cpu", "gpu"]
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
    precision: Literal["fp32", "fp16", "int8"]
    max_message_mb: int
    max_images: int
    max_streams: int
    stream_window: int
    max_pixels: int
    grace_s: float
    canary_s: float
    canary_limit_s: float
    recall_s: float
    access_log: Literal["all", "errors", "off"]
    log_format: Literal["json", "text"]
    reflection: bool
    oip: bool
    otlp: str


_OPTIONS = (
    click.option("--models", type=_FOLDER, default="models", help="Folder of all models."),
    click.option("--data-dir", type=_FOLDER, default="var", help="Folder of the collections."),
    click.option(
        "--index-device",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        help="What searches collections; auto: a GPU if FAISS can use one.",
    ),
    click.option(
        "--bind", default="127.0.0.1:50051", help="HOST:PORT, or unix:PATH; port 0: any."
    ),
    click.option(
        "--metrics-bind", default="127.0.0.1:9090", help="HOST:PORT of /metrics, or off."
    ),
    click.option(
        "--load",
        metavar="NAME[:VERSION]",
        multiple=True,
        help="Serve this model; repeat for several.  [default: the latest version of each]",
    ),
    click.option("--max-batch", type=click.IntRange(1), default=64, help="Images per batch."),
    click.option(
        "--window-ms",
        type=Number(0),
        default=0.0,
        help="Wait for a fuller batch, from its first request; 0 never waits.",
    ),
    click.option(
        "--bulk-share",
        type=Number(0, 1, min_open=True, max_open=True),
        default=0.2,
        help="Part of the images that BULK requests get while INTERACTIVE ones wait too.",
    ),
    click.option(
        "--queue-images", type=click.IntRange(1), default=4096, help="Images that may wait."
    ),
    click.option(
        "--queue-mb", type=click.IntRange(1), default=256, help="MiB of pixels that may wait."
    ),
    click.option(
        "--threads",
        type=click.IntRange(0),
        default=0,
        help="Threads per session; 0: the cores, shared among the sessions.",
    ),
    click.option(
        "--decode-threads",
        type=click.IntRange(0),
        default=0,
        help="Image files decoded at a time; 0: one per core.",
    ),
    click.option(
        "--sessions",
        type=click.IntRange(1),
        default=1,
        help="Batches of a model that run at the same time, each in a session of its own.",
    ),
    click.option(
        "--provider",
        default="cpu",
        metavar="cpu|cuda|tensorrt|NAME",
        help="What runs the models; NAME is onnxruntime's.  A missing one is an error.",
    ),
    click.option(
        "--allow-cpu-fallback",
        is_flag=True,
        help="Run on the CPU, with a warning, where the provider is missing.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "int8"]),
        default="fp32",
        help="Graph of each bundle that runs; a bundle without it is an error.",
    ),
    click.option(
        "--max-message-mb", type=click.IntRange(1), default=32, help="MiB of a request."
    ),
    click.option(
        "--max-images", type=click.IntRange(1), default=1024, help="Images in one call."
    ),
    click.option(
        "--max-streams", type=click.IntRange(0), default=64, help="Streams at a time."
    ),
    click.option(
        "--stream-window",
        type=click.IntRange(1),
        default=16,
        help="Requests under way in one stream; no further one is read meanwhile.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(1),
        default=89_478_485,
        help="Pixels that an image file may declare.",
    ),
    click.option(
        "--grace-s",
        type=Number(0),
        default=30.0,
        help="Seconds that running calls get at the end.",
    ),
    click.option(
        "--canary-s",
        type=Number(0),
        default=10.0,
        help="Seconds between two test images, which health follows; 0 sends none.",
    ),
    click.option(
        "--canary-limit-s",
        type=Number(0, min_open=True),
        default=30.0,
        help="Restart a model that is stuck for so long.",
    ),
    click.option(
        "--recall-s",
        type=Number(0),
        default=3600.0,
        help="Measure what searches of the collections miss every so often; 0: never.",
    ),
    click.option(
        "--access-log",
        type=click.Choice(["all", "errors", "off"]),
        default="errors",
        help="Calls to log.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["json", "text"]),
        default="text",
        help="One line each.",
    ),
    click.option("--reflection/--no-reflection", default=True, help="Tell clients the schema."),
    click.option("--oip/--no-oip", default=True, help="Serve Triton and KServe clients too."),
    click.option(
        "--otlp",
        default="",
        metavar="URL",
        help="Send traces to this collector, as http://127.0.0.1:4317; or set "
        "OTEL_EXPORTER_OTLP_ENDPOINT.",
    ),
)


def with_options(function: Command) -> Command:
    """Decorate a command with all of them, in this order."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
