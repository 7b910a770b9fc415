"""The kinds of index, what is turned to search them harder, and each one's bare FAISS twin."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import faiss
import numpy as np

from embedkit.errors import InvalidInput
from embedkit.types import Embeddings, SearchParams

__all__ = ["KINDS", "Kind", "kind_named"]

Knob = Literal["", "nprobe", "ef"]
# As a collection does it; more change little.
_TRAIN_PER_CLUSTER, _LEAST_PER_CLUSTER = 64, 32
_BUILD_EF = 100
_SEED = 7


@dataclass(frozen=True)
class Kind:
    """One kind of index.

    Attributes:
        name: As a collection's ``kind``.
        knob: What a search turns, empty for nothing.
        values: Of the knob, from fast to thorough.
        factory: For ``faiss.index_factory``; ``{nlist}`` and ``{pq}`` are put in.
        rerank: Candidates per neighbour that are compared again with whole vectors; 0 for none.
    """

    name: str
    knob: Knob
    values: tuple[int, ...]
    factory: str
    rerank: int = 0

    def params(self, value: int) -> SearchParams:
        """What a request carries for a value of the knob."""
        if self.knob == "nprobe":
            return SearchParams(nprobe=value)
        return SearchParams(ef=value) if self.knob == "ef" else SearchParams()

    def build(self, stored: Embeddings) -> "faiss.Index":
        """Train and fill the bare index.

        Args:
            stored: (n, d) unit vectors.
        """
        n, dim = stored.shape
        nlist = max(1, min(int(2 * n**0.5), n // _LEAST_PER_CLUSTER))
        text = self.factory.format(nlist=nlist, pq=_subquantisers(dim))
        index = faiss.index_factory(dim, text, faiss.METRIC_INNER_PRODUCT)
        if isinstance(index, faiss.IndexHNSW):
            index.hnsw.efConstruction = _BUILD_EF
        if not index.is_trained:
            count = min(n, max(_TRAIN_PER_CLUSTER * nlist, 65_536))
            chosen = np.random.default_rng(_SEED).choice(n, count, replace=False)
            index.train(stored[np.sort(chosen)])
        index.add(stored)
        if self.rerank:
            index = faiss.IndexRefineFlat(index, faiss.swig_ptr(stored))
            index.k_factor = self.rerank
        return index

    def turned(self, value: int) -> "faiss.SearchParameters | None":
        """The same value for the bare index."""
        # The wheel's own stubs know neither the keywords nor every class.
        library: Any = faiss
        found = None
        if self.knob == "nprobe":
            found = library.SearchParametersIVF(nprobe=value)
        elif self.knob == "ef":
            found = library.SearchParametersHNSW(efSearch=value)
        if self.rerank:
            found = library.IndexRefineSearchParameters(
                k_factor=self.rerank, base_index_params=found
            )
        return cast("faiss.SearchParameters | None", found)


_PROBES = (1, 2, 4, 8, 16, 32, 64)

KINDS = (
    Kind("flat", "", (0,), "Flat"),
    Kind("ivf_flat", "nprobe", _PROBES, "IVF{nlist},Flat"),
    Kind("hnsw", "ef", (16, 32, 64, 128, 256), "HNSW16"),
    Kind("sq8", "nprobe", _PROBES, "IVF{nlist},SQ8"),
    Kind("pq", "nprobe", _PROBES, "IVF{nlist},PQ{pq}x8", rerank=10),
)


def kind_named(name: str) -> Kind:
    """Return a kind.

    Raises:
        InvalidInput: If there is none of that name.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise InvalidInput(f"expected a kind of {[k.name for k in KINDS]}, got {name!r}")


def _subquantisers(dim: int) -> int:
    """Bytes of a product-quantised vector: four dimensions each, as far as they divide."""
    return next(m for m in range(max(1, dim // 4), 0, -1) if dim % m == 0)
