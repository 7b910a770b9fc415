"""Inverted-file indexes: vectors in clusters, of which a search looks through the nearest."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.device import chosen
from embedkit.retrieve.index.engines.source import Source
from embedkit.retrieve.index.engines.spec import Found, Keep, Spec
from embedkit.retrieve.index.scoring import prepared
from embedkit.types import Embeddings

__all__ = ["InvertedFile", "build_inverted_file", "held_out"]

_ITERATIONS = 10
# k-means gains nothing from more.
_PER_CLUSTER = 64
_LEAST_PER_CLUSTER = 32
_HELD_OUT = 200
_ENCODER_ROWS = 65_536
_VALUES_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class InvertedFile:
    """Searches clusters of vectors, whole ones or codes of them.

    Attributes:
        index: ``faiss.IndexIVF`` whose ids are positions.
        holds_vectors: Whether the codes are the prepared vectors themselves.
    """

    index: faiss.IndexIVF
    holds_vectors: bool

    @property
    def memory_bytes(self) -> int:
        """Bytes of codes with their ids, of centres, and of the map from ids to codes."""
        row = int(self.index.code_size) + 8 + 8
        return int(self.index.ntotal) * row + int(self.index.nlist) * 4 * int(self.index.d)

    @cached_property
    def most(self) -> int:
        """Effort at which every cluster is looked through."""
        return int(self.index.nlist)

    @property
    def efforts(self) -> tuple[int, ...]:
        """Efforts worth measuring, ascending."""
        steps = [1, 2, 3, 4, 6]
        while steps[-1] < self.most:
            steps += [steps[-2] * 2, steps[-1] * 2]
        return (*(step for step in steps if step < self.most), self.most)

    def search(
        self, queries: Embeddings, wide: int, effort: int, selector: faiss.IDSelector | None
    ) -> Found:
        """Positions found near prepared queries, -1 for none, with FAISS's measure."""
        gpu = chosen() if selector is None else None
        found = gpu.search(self.index, queries, wide, effort) if gpu else None
        if found is not None:
            return Found(*found)
        params = _params(effort)
        if selector is not None:
            params = faiss.SearchParametersIVF(nprobe=effort, sel=selector)  # type: ignore[call-arg]
        is_little = len(queries) * wide * self.index.d <= _VALUES_AT_ONCE
        if self.holds_vectors and selector is None and is_little:
            return self._found_with_vectors(queries, wide, params)
        measure, position = self.index.search(queries, wide, params=params)
        return Found(measure, position)

    def _found_with_vectors(
        self, queries: Embeddings, wide: int, params: faiss.SearchParametersIVF
    ) -> Found:
        """Vectors as FAISS leaves them: asking for them by position takes longer."""
        measure, position, codes = self.index.search_and_return_codes(
            queries, wide, params=params
        )
        vectors = codes.view(np.float32)
        if (position[:, -1] < 0).any():  # nothing was copied where nothing was found
            vectors[position < 0] = 1
        return Found(measure, position, vectors)

    def vectors(self, positions: npt.NDArray[np.int64]) -> Embeddings:
        """What the codes of some positions (n,) stand for, (n, d) float32."""
        return np.asarray(self.index.reconstruct_batch(positions), np.float32)


def build_inverted_file(
    spec: Spec, source: Source, check: Callable[[], None], keep: Keep
) -> tuple[InvertedFile, Slots]:
    """Train and fill an index with every vector of a source that stays there.

    Args:
        spec: What to build.
        source: At least one vector; read three times.
        check: Called now and then; raises to end the build.
        keep: Called with the prepared vectors in the order of positions.

    Returns:
        The index, and the slot of each position.
    """
    slots = source.slots()
    clusters = max(1, min(int(2 * len(slots) ** 0.5), len(slots) // _LEAST_PER_CLUSTER))
    rng = np.random.default_rng(0)
    fitted = np.setdiff1d(slots, held_out(slots), assume_unique=True)
    fitted = fitted if len(fitted) > _HELD_OUT else slots
    sample = np.sort(rng.permutation(fitted)[: max(_PER_CLUSTER * clusters, _ENCODER_ROWS)])
    vectors = prepared(source.fetch(sample)[1], spec.metric)
    quantizer = _clustered(spec, vectors, min(clusters, len(vectors)), check)
    index = _empty(spec, quantizer)
    index.train(vectors)
    check()
    kept = _filled(index, spec, source, keep)
    index.make_direct_map()
    return InvertedFile(index, spec.holds_vectors), kept


@lru_cache
def _params(effort: int) -> faiss.SearchParametersIVF:
    """Parameters that many searches share; making them takes 8 µs."""
    return faiss.SearchParametersIVF(nprobe=effort)  # type: ignore[call-arg]


def held_out(slots: Slots) -> Slots:
    """Some of the slots, ascending: those to measure with, that centres are not fitted to."""
    return np.sort(np.random.default_rng(1).permutation(slots)[:_HELD_OUT])


def _clustered(
    spec: Spec, vectors: Embeddings, clusters: int, check: Callable[[], None]
) -> faiss.IndexFlat:
    """The centres of k-means."""
    params = faiss.ClusteringParameters()
    params.niter = 1
    params.spherical = spec.metric == "cosine"
    params.max_points_per_centroid = _PER_CLUSTER
    params.min_points_per_centroid = 1
    clustering = faiss.Clustering(spec.dim, clusters, params)
    quantizer = faiss.IndexFlat(spec.dim, spec.faiss_metric)
    for _ in range(_ITERATIONS):  # one at a time, so that it can be ended
        check()
        quantizer.reset()
        clustering.train(vectors, quantizer)
    return quantizer


def _empty(spec: Spec, quantizer: faiss.IndexFlat) -> faiss.IndexIVF:
    common = (quantizer, spec.dim, quantizer.ntotal)
    if spec.kind == "pq":
        index = faiss.IndexIVFPQ(*common, _parts(spec.dim), 8, spec.faiss_metric)
        index.pq.cp.niter = _ITERATIONS
        index.pq.cp.max_points_per_centroid = _PER_CLUSTER
        return index
    if spec.holds_vectors:
        return faiss.IndexIVFFlat(*common, spec.faiss_metric)
    code = faiss.ScalarQuantizer.QT_8bit
    if spec.kind == "ivf_flat" and spec.storage == "float16":
        code = faiss.ScalarQuantizer.QT_fp16
    return faiss.IndexIVFScalarQuantizer(*common, code, spec.faiss_metric)


def _parts(dim: int) -> int:
    """Into how many parts of at most 4 dimensions a vector can be cut."""
    return next(parts for parts in range(1, dim + 1) if dim % parts == 0 and dim <= 4 * parts)


def _filled(index: faiss.IndexIVF, spec: Spec, source: Source, keep: Keep) -> Slots:
    """Add every vector of the source; returns their slots.

    The sizes of the clusters are found first: lists that grow hold up to twice their content.
    """
    homes = []
    seen = []
    for slots, vectors in source.stream():
        _, home = index.quantizer.search(prepared(vectors, spec.metric), 1)
        homes.append(home[:, 0].astype(np.int32))
        seen.append(slots)
    all_slots, all_homes = np.concatenate(seen), np.concatenate(homes)
    lists = faiss.downcast_InvertedLists(index.invlists)  # type: ignore[arg-type]
    for number, size in enumerate(np.bincount(all_homes, minlength=index.nlist).tolist()):
        lists.resize(number, size)
        lists.resize(number, 0)
    kept = []
    for slots, vectors in source.stream():
        places = np.searchsorted(all_slots, slots)
        start = index.ntotal
        ids = np.arange(start, start + len(slots))
        home = all_homes[places].astype(np.int64)
        rows = prepared(vectors, spec.metric)
        keep(rows)
        arrays = (rows, ids, home)
        index.add_core(len(slots), *(faiss.swig_ptr(array) for array in arrays))
        kept.append(slots)
    return np.concatenate(kept)
