"""A collection on a server of its own: filled, indexed, started again, and what that took."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedkit.bench.index.kinds import Kind
from embedkit.bench.index.memory import disk_of, memory_of
from embedkit.bench.index.senders import SearchSender, found_rows, search_requests
from embedkit.bench.index.vectors import Ids
from embedkit.bench.serving.load import Clock, Slice, run_closed
from embedkit.bench.serving.server import linked_models, process_clock, server_process
from embedkit.client.sync import Client, connect
from embedkit.errors import Unavailable
from embedkit.types import Embeddings

__all__ = ["Costs", "ServedIndex", "served_index"]

NAME = "bench"
_ROWS_AT_ONCE = 32_768
_BUILD_LIMIT_S = 3600.0
_WARM_SHARE = 0.2
_LEAST_WARM_S = 0.2


@dataclass(frozen=True)
class Costs:
    """What a collection took.

    Attributes:
        upsert_s: Seconds until every vector was committed.
        settle_s: Seconds from then until the index was built.
        restart_s: Seconds until a server with the collection answered after a restart.
        idle_bytes: Resident memory of the server before the collection was made.
        filled_bytes: The same when the index was built.
        restarted_bytes: The same after the restart.
        peak_bytes: The most that was ever resident while it was filled.
        disk_bytes: Of the whole data folder.
    """

    upsert_s: float
    settle_s: float
    restart_s: float
    idle_bytes: int
    filled_bytes: int
    restarted_bytes: int
    peak_bytes: int
    disk_bytes: int


@dataclass(frozen=True, eq=False)
class ServedIndex:
    """A filled collection behind a running server.

    Attributes:
        address: Of the server.
        clock: CPU seconds of the server.
        queries: (m, d) float32.
        k: Neighbours per query.
        kind: Which index.
        costs: What filling it took.
    """

    address: str
    clock: Clock
    queries: Embeddings
    k: int
    kind: Kind
    costs: Costs

    def search(self, value: int) -> Ids:
        """Search every query once; the rows found."""
        return found_rows(self.address, self._requests(value, 1))

    def measure(self, value: int, batch: int, in_flight: int, seconds: float) -> Slice:
        """Keep some calls in flight for some seconds.

        Args:
            value: Of the kind's knob.
            batch: Queries per call.
            in_flight: Calls without an answer at a time.
            seconds: How long.
        """
        sender = SearchSender(self.address, self._requests(value, batch))
        try:
            return run_closed(
                sender,
                in_flight=in_flight,
                seconds=seconds,
                warm_s=max(seconds * _WARM_SHARE, _LEAST_WARM_S),
                server_clock=self.clock,
            )
        finally:
            sender.close()

    def _requests(self, value: int, batch: int) -> list[bytes]:
        batch = min(batch, len(self.queries))
        return search_requests(NAME, self.queries, self.k, batch, self.kind.params(value))


@contextmanager
def served_index(
    kind: Kind,
    vectors: tuple[Embeddings, Embeddings],
    k: int,
    bundle: Path,
    *,
    cores: tuple[int, ...],
    arguments: tuple[str, ...] = (),
) -> Iterator[ServedIndex]:
    """Serve a collection of some vectors, in a process of its own.

    Args:
        kind: Of the collection.
        vectors: Stored ones (n, d) and queries (m, d).
        k: Neighbours per query.
        bundle: The model that a server must have; it is not asked for anything.
        cores: Of the server; empty for any.
        arguments: Further options of ``embedkit serve``.
    """
    stored, queries = vectors
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as folder:
        data = Path(folder) / "var"
        options = ["--models", str(linked_models(bundle, Path(folder)))]
        options += ["--data-dir", str(data), "--threads", "1", "--canary-s", "0"]
        options += ["--recall-s", "0", *arguments]
        with server_process(options, cores=cores) as started:
            idle = memory_of(started.pid)
            with connect(started.address, timeout_s=None) as client:
                upsert_s, settle_s = _fill(client, kind, stored)
            filled = memory_of(started.pid)
        with server_process(options, cores=cores) as started:
            clock = process_clock(started.pid)
            with connect(started.address, timeout_s=None) as client:
                _wait_until_built(client)
            costs = Costs(
                upsert_s=upsert_s,
                settle_s=settle_s,
                restart_s=started.ready_s,
                idle_bytes=idle.resident_bytes,
                filled_bytes=filled.resident_bytes,
                restarted_bytes=memory_of(started.pid).resident_bytes,
                peak_bytes=filled.peak_bytes,
                disk_bytes=disk_of(data),
            )
            yield ServedIndex(started.address, clock, queries, k, kind, costs)


def _fill(client: Client, kind: Kind, stored: Embeddings) -> tuple[float, float]:
    """Upsert everything; seconds until the last commit, and from there until it is indexed."""
    client.create_collection(NAME, dim=stored.shape[1], metric="cosine", kind=kind.name)
    began = time.perf_counter()
    for start in range(0, len(stored), _ROWS_AT_ONCE):
        part = stored[start : start + _ROWS_AT_ONCE]
        ids = [str(i) for i in range(start, start + len(part))]
        client.upsert(NAME, ids, vectors=part)
    committed = time.perf_counter()
    count = client.describe(NAME).count
    if count != len(stored):
        raise Unavailable(f"expected {len(stored)} vectors on the server, got {count}")
    _wait_until_built(client)
    return committed - began, time.perf_counter() - committed


def _wait_until_built(client: Client) -> None:
    """Wait until the index is there.

    Raises:
        Unavailable: If it could not be built.
    """
    state = client.wait_until_built(NAME, _BUILD_LIMIT_S).index
    if state is not None and state.error:
        raise Unavailable(f"expected an index, got {state.error}")
