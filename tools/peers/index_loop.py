"""What every engine of ``bench_peers index`` is asked, whatever it is: build, rows, rate.

A script ``index_NAME.py STORED.npy QUERIES.npy K`` ends with ``run(Engine())``. It says in a
line what building took, then answers each line that it reads. ``ENGINE_CORES`` and
``CALLER_CORES`` are where the engine and the caller run.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np

LEAST_RUNS = 2


class Engine(Protocol):
    """What a script has to bring."""

    def build(self, stored: np.ndarray) -> None:
        """Start, and store and index vectors (n, d)."""

    def search(self, queries: np.ndarray, k: int, value: int) -> list[list[int]]:
        """Rows of the neighbours of each query; a larger value finds more."""

    def close(self) -> None:
        """End everything; ``build`` may not have finished."""


def keep_on(variable: str) -> None:
    """Keep this thread, and what it starts from now on, on the cores that a variable names."""
    cores = os.environ.get(variable, "")
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])


def resident_bytes() -> int:
    """Resident memory of this process and everything below it."""
    return sum(_resident(pid) for pid in _family(os.getpid()))


def run(engine: Engine) -> None:
    """Build, then answer what is asked on standard input until it ends.

    Args:
        engine: Builds an index and searches it.
    """
    # Engines write to standard output; the answers must stay readable.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    stored, queries, k = np.load(sys.argv[1]), np.load(sys.argv[2]), int(sys.argv[3])
    keep_on("ENGINE_CORES")
    try:
        before, began = resident_bytes(), time.perf_counter()
        engine.build(stored)
        build_s = time.perf_counter() - began
        say(answers, {"build_s": build_s, "memory_bytes": resident_bytes() - before})
        for line in sys.stdin:
            task = json.loads(line)
            if "batch" in task:
                say(answers, measure(engine, queries, k, task))
            else:
                say(
                    answers,
                    [list(map(int, r)) for r in engine.search(queries, k, task["value"])],
                )
    finally:
        engine.close()


def measure(engine: Engine, queries: np.ndarray, k: int, task: dict) -> dict:
    """Search batches of other queries for some seconds, at least twice."""
    batch, value = int(task["batch"]), task["value"]
    parts = [queries[s : s + batch] for s in range(0, len(queries) - batch + 1, batch)]
    engine.search(parts[0], k, value)
    times: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    now = began
    while now - began < task["seconds"] or len(times) < LEAST_RUNS:
        engine.search(parts[len(times) % len(parts)], k, value)
        last, now = now, time.perf_counter()
        times.append(now - last)
    done = len(times) * batch
    cpu_us = (time.process_time() - cpu) / done * 1e6
    return {
        "queries_per_s": done / (now - began),
        "cpu_us": cpu_us,
        "p50_ms": float(np.median(times)) * 1e3,
    }


def say(answers: TextIO, value: object) -> None:
    """Write one line."""
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except OSError:
        return 0
