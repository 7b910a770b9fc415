"""Every size, dimension and kind in turn: bare index and server built, rounds run, figures."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from embedkit.bench.cores import pinned
from embedkit.bench.index.bare import BareIndex, BareRun, bare_index
from embedkit.bench.index.figures import (
    SCHEMA,
    Figures,
    Load,
    Turn,
    cost_figures,
    point_figures,
)
from embedkit.bench.index.kinds import KINDS, Kind
from embedkit.bench.index.served import ServedIndex, served_index
from embedkit.bench.index.vectors import Ids, Vectors, clustered, from_file, recall, truth
from embedkit.bench.models import write_network
from embedkit.errors import InvalidInput
from embedkit.runtime.environment import code_digest, machine, package_versions

__all__ = ["Plan", "report", "run"]

_PACKAGES = ("embedkit", "faiss-cpu", "faiss-gpu", "grpcio", "protobuf", "numpy")


@dataclass(frozen=True)
class Plan:
    """What to measure, where, how long.

    Attributes:
        sizes: Numbers of vectors.
        dims: Dimensions.
        data: An ``.npz`` of embeddings; sizes and dims do not count then.
        kinds: Of index.
        loads: How queries come.
        values: At most so many settings of a kind's knob; 0 for all.
        k: Neighbours per query.
        queries: Different ones.
        seconds: Served stretch of each point in each round; a bare one takes half of it.
        rounds: How often every point is measured.
        server_cores: Cores of the server and the bare index; empty for any.
        client_cores: Cores of this process meanwhile; empty for any.
        seed: Of the vectors.
        arguments: Further options of ``embedkit serve``.
    """

    sizes: tuple[int, ...] = (10_000, 100_000)
    dims: tuple[int, ...] = (128, 384)
    data: Path | None = None
    kinds: tuple[Kind, ...] = KINDS
    loads: tuple[Load, ...] = (Load(1, 1), Load(64, 4))
    values: int = 0
    k: int = 10
    queries: int = 1000
    seconds: float = 1.0
    rounds: int = 3
    server_cores: tuple[int, ...] = ()
    client_cores: tuple[int, ...] = ()
    seed: int = 0
    arguments: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Check that there is something to measure.

        Raises:
            InvalidInput: If there are no sizes, kinds or loads, or fewer queries than a batch.
        """
        if not (self.sizes and self.dims and self.kinds and self.loads):
            raise InvalidInput(
                "expected at least one size, dimension, kind and batch, got none"
            )
        largest = max(load.batch for load in self.loads)
        if self.queries < largest or self.k < 1 or self.rounds < 1:
            raise InvalidInput(
                f"expected at least {largest} queries, k >= 1 and rounds >= 1, got "
                f"{self.queries}, {self.k} and {self.rounds}"
            )


Tell = Callable[[str], None]


def run(plan: Plan, tell: Tell | None = None) -> list[Figures]:
    """Measure every index; one table of figures for each.

    Args:
        plan: What, where, how long.
        tell: Called with a line of progress.

    Raises:
        Unavailable: If a server or a bare index does not answer.
        InvalidInput: If the file of embeddings has none.
    """
    say = tell or (lambda line: None)
    results = []
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as folder:
        bundle = write_network(Path(folder) / "models", "light")
        for vectors in _all_vectors(plan):
            n, dim = vectors.stored.shape
            files = Path(folder) / "stored.npy", Path(folder) / "queries.npy"
            for file, array in zip(files, (vectors.stored, vectors.queries), strict=True):
                np.save(file, array, allow_pickle=False)
            true = truth(vectors, min(plan.k, n))
            for kind in plan.kinds:
                say(f"{vectors.name}, {n} x {dim}, {kind.name}: building")
                results.append(_measure_kind(plan, kind, vectors, true, (files, bundle), say))
    return results


def report(plan: Plan, results: Sequence[Figures]) -> Figures:
    """The JSON file: its form, the code, the versions, the machine, the indexes."""
    return {
        "schema": SCHEMA,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_digest(),
        "versions": package_versions(_PACKAGES),
        "machine": machine(),
        "server_cores": list(plan.server_cores),
        "client_cores": list(plan.client_cores),
        "seconds": plan.seconds,
        "rounds": plan.rounds,
        "queries": plan.queries,
        "seed": plan.seed,
        "indexes": list(results),
    }


def _all_vectors(plan: Plan) -> Iterator[Vectors]:
    """Every set of vectors, made when it is its turn."""
    if plan.data is not None:
        yield from_file(plan.data, queries=plan.queries, seed=plan.seed)
        return
    for n in plan.sizes:
        for dim in plan.dims:
            yield clustered(n, dim, queries=plan.queries, seed=plan.seed)


def _measure_kind(
    plan: Plan,
    kind: Kind,
    vectors: Vectors,
    true: Ids,
    places: tuple[tuple[Path, Path], Path],
    say: Tell,
) -> Figures:
    """Build one kind of index twice, bare and served, and let the two take turns."""
    files, bundle = places
    n, dim = vectors.stored.shape
    k, cores = true.shape[1], plan.server_cores
    with (
        bare_index(kind, files, k, cores=cores, threads=1) as bare,
        pinned(plan.client_cores),
        served_index(
            kind,
            (vectors.stored, vectors.queries),
            k,
            bundle,
            cores=cores,
            arguments=plan.arguments,
        ) as served,
    ):
        points = []
        for value in kind.values[: plan.values or None]:
            found = recall(served.search(value), true), recall(bare.search(value), true)
            for load in plan.loads:
                turns = _turns(plan, load, value, bare, served)
                points.append(point_figures(kind.knob, value, load, found, turns))
                say(f"  {_told(points[-1])}")
        return {
            "data": vectors.name,
            "n": n,
            "dim": dim,
            "k": k,
            "kind": kind.name,
            "bare": kind.factory,
            "costs": cost_figures(served.costs, bare.build_s, bare.memory_bytes, (n, dim)),
            "points": points,
        }


def _turns(
    plan: Plan, load: Load, value: int, bare: BareIndex, served: ServedIndex
) -> list[Turn]:
    def rest() -> BareRun:
        return bare.measure(value, load.batch, plan.seconds / 2)

    turns, before = [], rest()
    for _ in range(plan.rounds):
        seen = served.measure(value, load.batch, load.in_flight, plan.seconds)
        after = rest()
        turns.append(Turn(before, seen, after))
        before = after
    return turns


def _told(point: Figures) -> str:
    knob = f"{point['knob']} {point['value']}, " if point["knob"] else ""
    return (
        f"{knob}{point['in_flight']} calls of {point['batch']}: recall {point['recall']:.3f}, "
        f"{point['queries_per_s']['median']:.0f} queries/s, "
        f"{point['efficiency']['median']:.2f} of bare"
    )
