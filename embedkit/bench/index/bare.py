"""Bare FAISS: the same vectors in an index of its own process, on the server's cores.

``python -m embedkit.bench.index.bare KIND THREADS STORED.npy QUERIES.npy K`` is that process:
it builds the index, tells what that took, and answers each line with what it measured.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from embedkit.bench.cores import pinned
from embedkit.bench.index.kinds import Kind, kind_named
from embedkit.bench.index.memory import memory_of
from embedkit.bench.index.vectors import Ids
from embedkit.errors import Unavailable
from embedkit.types import Embeddings

__all__ = ["BareIndex", "BareRun", "bare_index"]

Said = Any
"""What the process says: JSON."""

_STOP_S = 60.0
_LEAST_RUNS = 2


class BareRun(NamedTuple):
    """One stretch of searches.

    Attributes:
        queries_per_s: Rate.
        cpu_us: Microseconds of CPU per query.
        p50_ms: Median time of a search call.
    """

    queries_per_s: float
    cpu_us: float
    p50_ms: float


class BareIndex:
    """The bare index's process, waiting to be asked.

    Args:
        process: Of this module, with both ends piped.

    Raises:
        Unavailable: If it ended while it built the index.

    Attributes:
        build_s: Seconds that training and adding took.
        memory_bytes: What the index takes in memory.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        built = self._read()
        self.build_s: float = built["build_s"]
        self.memory_bytes: int = built["memory_bytes"]

    def measure(self, value: int, batch: int, seconds: float) -> BareRun:
        """Search batches for some seconds, at least twice.

        Args:
            value: Of the kind's knob.
            batch: Queries per call.
            seconds: How long.
        """
        return BareRun(**self._ask(value=value, batch=batch, seconds=seconds))

    def search(self, value: int) -> Ids:
        """Search every query once; the rows found."""
        return np.array(self._ask(value=value), np.int64)

    def _ask(self, **task: float) -> Said:
        writer = self._process.stdin
        if writer is None:
            raise TypeError("expected a process with pipes")
        try:
            writer.write(json.dumps(task) + "\n")
            writer.flush()
        except BrokenPipeError:
            raise Unavailable(
                f"expected the bare index, got exit {self._process.wait()}"
            ) from None
        return self._read()

    def _read(self) -> Said:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise Unavailable(f"expected the bare index, got exit {self._process.wait()}")
        said: Said = json.loads(line)
        return said


@contextmanager
def bare_index(
    kind: Kind, files: tuple[Path, Path], k: int, *, cores: tuple[int, ...], threads: int
) -> Iterator[BareIndex]:
    """Build an index in a process of its own.

    Args:
        kind: Which.
        files: Stored vectors and queries, ``.npy``.
        k: Neighbours per query.
        cores: Its cores, those of the server; empty for any.
        threads: Of FAISS.
    """
    command = [sys.executable, "-m", __name__, kind.name, str(threads), *map(str, files)]
    pipe = subprocess.PIPE
    with pinned(cores):
        process = subprocess.Popen([*command, str(k)], stdin=pipe, stdout=pipe, text=True)
    try:
        yield BareIndex(process)
    finally:
        # The end of its input is the end of its work.
        process.communicate(timeout=_STOP_S)


def measure(
    index: "faiss.Index", kind: Kind, queries: Embeddings, k: int, task: dict[str, Any]
) -> BareRun:
    """One stretch of searches, with other queries in every call."""
    batch, seconds, params = int(task["batch"]), task["seconds"], kind.turned(task["value"])
    starts = range(0, max(1, len(queries) - batch + 1), batch)
    parts = [np.ascontiguousarray(queries[s : s + batch]) for s in starts]
    index.search(parts[0], k, params=params)
    times: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    now = began
    while now - began < seconds or len(times) < _LEAST_RUNS:
        index.search(parts[len(times) % len(parts)], k, params=params)
        last, now = now, time.perf_counter()
        times.append(now - last)
    done = len(times) * len(parts[0])
    cpu_us = (time.process_time() - cpu) / done * 1e6
    return BareRun(done / (now - began), cpu_us, float(np.median(times)) * 1e3)


def main(arguments: Sequence[str]) -> None:
    """Build, then answer what is asked on standard input until it ends."""
    name, threads, stored_file, queries_file, count = arguments
    kind, k = kind_named(name), int(count)
    faiss.omp_set_num_threads(int(threads))
    stored, queries = np.load(stored_file), np.load(queries_file)
    before, began = memory_of(), time.perf_counter()
    index = kind.build(stored)
    build_s = time.perf_counter() - began
    grown = memory_of().anonymous_bytes - before.anonymous_bytes
    _say({"build_s": build_s, "memory_bytes": grown + (stored.nbytes if kind.rerank else 0)})
    for line in sys.stdin:
        task = json.loads(line)
        if "batch" in task:
            _say(measure(index, kind, queries, k, task)._asdict())
        else:
            _say(index.search(queries, k, params=kind.turned(task["value"]))[1].tolist())


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
