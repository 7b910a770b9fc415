"""A server to measure: started here on cores of its own, or one that runs already."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from embedkit.bench.cores import pinned
from embedkit.bench.serving.load import Clock
from embedkit.bundle import Bundle
from embedkit.errors import Unavailable
from embedkit.serve.observe.scrape import fetch

__all__ = [
    "Started",
    "Target",
    "linked_models",
    "own_server",
    "process_clock",
    "running",
    "server_process",
]

_STOP_S = 20.0


@dataclass(frozen=True)
class Target:
    """Where to send, and what can be known of the other side.

    Attributes:
        address: ``HOST:PORT`` of the server.
        model: Name of the model there.
        metrics: ``HOST:PORT`` of its ``/metrics``, or empty.
        clock: CPU seconds that it has used, or None.
        ready_s: Seconds from its start until it answered, or None.
    """

    address: str
    model: str
    metrics: str = ""
    clock: Clock | None = None
    ready_s: float | None = None


@contextmanager
def own_server(
    bundle: Path, *, cores: tuple[int, ...], threads: int, arguments: Sequence[str] = ()
) -> Iterator[Target]:
    """Serve one bundle in a process of its own, on a free port of the loopback interface.

    Args:
        bundle: Directory of the bundle.
        cores: Cores of the server; empty for any.
        threads: Threads of the model.
        arguments: Further options of ``embedkit serve``.

    Yields:
        Where it answers.

    Raises:
        Unavailable: If it ends instead of answering; its own words are on standard error.
    """
    manifest = Bundle(bundle, verify=False).manifest
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as folder:
        models = linked_models(bundle, Path(folder))
        options = ["--models", str(models), "--data-dir", f"{folder}/var"]
        options += ["--threads", str(threads), *arguments]
        with server_process(options, cores=cores) as started:
            yield Target(
                started.address,
                manifest.name,
                started.metrics,
                process_clock(started.pid),
                started.ready_s,
            )


class Started(NamedTuple):
    """A server's process, ready.

    Attributes:
        pid: Of the process.
        address: ``HOST:PORT`` of gRPC.
        metrics: ``HOST:PORT`` of its ``/metrics``, or empty.
        ready_s: Seconds from its start until it answered.
    """

    pid: int
    address: str
    metrics: str
    ready_s: float


def linked_models(bundle: Path, folder: Path) -> Path:
    """Make a models folder in ``folder`` with a link to one bundle, and return it."""
    manifest = Bundle(bundle, verify=False).manifest
    place = folder / "models" / manifest.name
    place.mkdir(parents=True)
    (place / str(manifest.version)).symlink_to(bundle.resolve())
    return place.parent


@contextmanager
def server_process(options: Sequence[str], *, cores: tuple[int, ...]) -> Iterator[Started]:
    """Run ``embedkit serve`` on free ports of the loopback interface until the block ends.

    Args:
        options: All but the addresses.
        cores: Its cores; empty for any.

    Raises:
        Unavailable: If it ends instead of answering; its own words are on standard error.
    """
    command = [sys.executable, "-m", "embedkit", "serve", "--bind", "127.0.0.1:0"]
    command += ["--metrics-bind", "127.0.0.1:0", *options]
    began = time.monotonic()
    with pinned(cores):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise Unavailable(f"expected a server, got exit code {process.wait()}")
        ready = json.loads(line)
        metrics = ready["metrics"] or ""
        yield Started(process.pid, ready["address"], metrics, time.monotonic() - began)
    finally:
        _stop(process)


def running(address: str, model: str, metrics: str = "") -> Target:
    """Return a server that runs already.

    Args:
        address: Its ``HOST:PORT``.
        model: Name of the model there.
        metrics: ``HOST:PORT`` of its ``/metrics``, or empty: then its CPU time is unknown.
    """

    def clock() -> float:
        return fetch(metrics).value("process_cpu_seconds_total")

    return Target(address, model, metrics, clock if metrics else None)


def process_clock(pid: int) -> Clock:
    """Return a clock of the CPU seconds of a process and its children, to the nanosecond."""

    def clock() -> float:
        return sum(_cpu_s(one) for one in _family(pid))

    return clock


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        # A process that has just ended takes its files along.
        with contextlib.suppress(OSError):
            for child in children.read_text(encoding="ascii").split():
                yield from _family(int(child))


def _cpu_s(pid: int) -> float:
    # What clock_getcpuclockid(3) gives on Linux; /proc counts in hundredths of a second.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
