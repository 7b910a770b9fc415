"""Graph indexes: each vector is linked to near ones, and a search walks along the links."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.retrieve.index.blocks import Slots
from embedkit.retrieve.index.engines.source import Source
from embedkit.retrieve.index.engines.spec import Found, Keep, Spec
from embedkit.retrieve.index.scoring import prepared
from embedkit.types import Embeddings

__all__ = ["Graph", "build_graph"]

_LINKS = 16
_BUILD_EF = 100
_EFFORTS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_TRAINING_ROWS = 65_536
# Adding takes about a millisecond per row; between two steps a build can be ended.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Graph:
    """Searches a graph over vectors, whole ones or codes of them.

    Attributes:
        index: ``faiss.IndexHNSW`` whose ids are positions.
    """

    index: faiss.IndexHNSW

    @cached_property
    def _rows(self) -> Embeddings | None:
        """The whole vectors (n, d) where FAISS has them, in its memory; else None."""
        storage = faiss.downcast_index(self.index.storage)
        if not isinstance(storage, faiss.IndexFlat):
            return None
        rows = faiss.rev_swig_ptr(storage.get_xb(), int(storage.ntotal) * int(storage.d))
        return rows.reshape(-1, int(storage.d))

    @property
    def memory_bytes(self) -> int:
        """Bytes of vectors or codes, and of the links."""
        graph = self.index.hnsw
        links, offsets = graph.neighbors, graph.offsets  # type: ignore[attr-defined]
        rows = int(self.index.ntotal) * int(self.index.storage.sa_code_size())
        return rows + 4 * int(links.size()) + (8 + 4) * int(offsets.size())

    @cached_property
    def most(self) -> int:
        """The largest effort: beyond it, comparing every vector is cheaper."""
        return max(_EFFORTS[-1], int(self.index.ntotal) // 8)

    @property
    def efforts(self) -> tuple[int, ...]:
        """Efforts worth measuring, ascending."""
        return _EFFORTS

    def search(
        self, queries: Embeddings, wide: int, effort: int, selector: faiss.IDSelector | None
    ) -> Found:
        """Positions found near prepared queries, -1 for none, with FAISS's measure."""
        params = _params(max(effort, wide), selector)
        measure, position = self.index.search(queries, wide, params=params)
        return Found(measure, position)

    def vectors(self, positions: npt.NDArray[np.int64]) -> Embeddings:
        """What the codes of some positions (n,) stand for, (n, d) float32."""
        if self._rows is not None:
            return self._rows.take(positions, axis=0)
        return np.asarray(self.index.reconstruct_batch(positions), np.float32)


def _params(effort: int, selector: faiss.IDSelector | None) -> faiss.SearchParameters:
    if selector is None:
        return _shared_params(effort)
    return faiss.SearchParametersHNSW(efSearch=effort, sel=selector)  # type: ignore[attr-defined,no-any-return]


@lru_cache
def _shared_params(effort: int) -> faiss.SearchParameters:
    """Parameters that many searches share; making them takes 8 µs."""
    return faiss.SearchParametersHNSW(efSearch=effort)  # type: ignore[attr-defined,no-any-return]


def build_graph(
    spec: Spec, source: Source, check: Callable[[], None], keep: Keep
) -> tuple[Graph, Slots]:
    """Link every vector of a source that stays there; see ``build_inverted_file``."""
    metric = spec.faiss_metric
    index: faiss.IndexHNSW
    if spec.holds_vectors:
        index = faiss.IndexHNSWFlat(spec.dim, _LINKS, metric)
    else:
        quantizer = faiss.ScalarQuantizer
        code = quantizer.QT_fp16 if spec.storage == "float16" else quantizer.QT_8bit
        index = faiss.IndexHNSWSQ(spec.dim, code, _LINKS, metric)  # type: ignore[arg-type]
        sample = np.random.default_rng(0).permutation(source.slots())[:_TRAINING_ROWS]
        index.train(prepared(source.fetch(np.sort(sample))[1], spec.metric))
    index.hnsw.efConstruction = _BUILD_EF
    kept = []
    for slots, vectors in source.stream():
        rows = prepared(vectors, spec.metric)
        keep(rows)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            check()
            index.add(rows[start : start + _ROWS_AT_ONCE])
        kept.append(slots)
    return Graph(index), np.concatenate(kept)
