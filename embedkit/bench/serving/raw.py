"""The bare session: the same graph in onnxruntime, alone, in a process on the server's cores.

``python -m embedkit.bench.serving.raw BUNDLE THREADS PROVIDER`` is that process: it reads lines
of batch sizes and seconds, and answers each with what it measured.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embedkit.bench.cores import pinned
from embedkit.errors import Unavailable
from embedkit.runtime.local import load
from embedkit.runtime.session import Session

__all__ = ["RawRun", "RawSession", "raw_session"]

_STOP_S = 20.0
# The median of a single run says nothing.
_LEAST_RUNS = 2


class RawRun(NamedTuple):
    """One stretch of runs at one batch size.

    Attributes:
        size: Images per run.
        images_per_s: Rate.
        cpu_us: Microseconds of CPU per image.
        p50_ms: Median time of a run.
    """

    size: int
    images_per_s: float
    cpu_us: float
    p50_ms: float


class RawSession:
    """The bare session's process, waiting to be asked.

    Args:
        process: Of this module, with both ends piped.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def measure(self, sizes: Sequence[int], seconds: float) -> list[RawRun]:
        """Run batches of each size for ``seconds`` in all.

        Raises:
            Unavailable: If the process has ended.
        """
        reader, writer = self._process.stdout, self._process.stdin
        if reader is None or writer is None:
            raise TypeError("expected a process with pipes")
        try:
            writer.write(json.dumps({"sizes": list(sizes), "seconds": seconds}) + "\n")
            writer.flush()
            line = reader.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Unavailable(f"expected the bare session, got exit {self._process.wait()}")
        return [RawRun(*run) for run in json.loads(line)]


@contextmanager
def raw_session(
    bundle: Path,
    *,
    cores: tuple[int, ...],
    threads: int,
    provider: str = "cpu",
    precision: str = "fp32",
) -> Iterator[RawSession]:
    """Load a bundle's graph in a process of its own.

    Args:
        bundle: Directory of the bundle.
        cores: Its cores, those of the server; empty for any.
        threads: Threads of the session.
        provider: ``cpu``, ``cuda``, or as onnxruntime calls it.
        precision: Which of the bundle's graphs.
    """
    command = [sys.executable, "-m", __name__, str(bundle), str(threads), provider, precision]
    pipe = subprocess.PIPE
    with pinned(cores):
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    try:
        yield RawSession(process)
    finally:
        # The end of its input is the end of its work.
        process.communicate(timeout=_STOP_S)


def measure_size(session: Session, size: int, seconds: float) -> RawRun:
    """Run batches of one size for some seconds, at least twice."""
    shape = (size, *session.input.shape)
    images = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    session.run(images, ["embedding"])
    times: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    now = began
    while now - began < seconds or len(times) < _LEAST_RUNS:
        session.run(images, ["embedding"])
        last, now = now, time.perf_counter()
        times.append(now - last)
    done = len(times) * size
    cpu_us = (time.process_time() - cpu) / done * 1e6
    return RawRun(size, done / (now - began), cpu_us, float(np.median(times)) * 1e3)


def main(arguments: Sequence[str]) -> None:
    """Answer what is asked on standard input until it ends."""
    bundle, threads, provider, precision = arguments
    model = load(
        bundle,
        precision=precision,
        threads=int(threads),
        providers=[provider],
        verify=False,
    )
    session = model.session
    for line in sys.stdin:
        task = json.loads(line)
        each = task["seconds"] / len(task["sizes"])
        runs = [measure_size(session, size, each) for size in task["sizes"]]
        sys.stdout.write(json.dumps(runs) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
