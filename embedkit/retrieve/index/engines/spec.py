"""What an index is to be, and what a search of it gives: the words of builders and segments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.types import Embeddings, Metric

__all__ = ["Engine", "Found", "Keep", "Spec"]


@dataclass(frozen=True)
class Spec:
    """What to build.

    Attributes:
        kind: One of the approximate kinds.
        storage: How vectors are kept.
        metric: How they are compared.
        dim: Dimensions.
    """

    kind: str
    storage: str
    metric: Metric
    dim: int

    @property
    def faiss_metric(self) -> int:
        """FAISS's number of the metric."""
        number: int = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        return number

    @property
    def holds_vectors(self) -> bool:
        """Whether the index has the whole vectors in memory, and not only codes of them."""
        return self.kind in ("ivf_flat", "hnsw") and self.storage == "float32"


@dataclass(frozen=True, eq=False)
class Found:
    """What FAISS found; arrays are (n, m), best first.

    Attributes:
        measure: FAISS's own, float32; lower is better under L2.
        position: -1 for none.
        vectors: (n, m, d) prepared float32, finite; None where they have to be asked for.
    """

    measure: npt.NDArray[np.float32]
    position: npt.NDArray[np.int64]
    vectors: Embeddings | None = None


class Engine(Protocol):
    """A FAISS index whose ids are positions, and how hard it can be made to try."""

    @property
    def index(self) -> faiss.Index:
        """What is written to disk."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of vectors or codes, and of what leads to them."""
        ...

    @property
    def most(self) -> int:
        """The largest effort."""
        ...

    @property
    def efforts(self) -> tuple[int, ...]:
        """Efforts worth measuring, ascending."""
        ...

    def search(
        self, queries: Embeddings, wide: int, effort: int, selector: faiss.IDSelector | None
    ) -> Found:
        """Positions found near prepared queries."""
        ...

    def vectors(self, positions: npt.NDArray[np.int64]) -> Embeddings:
        """What the codes of some positions (n,) stand for, (n, d) float32."""
        ...


Keep = Callable[[Embeddings], None]
"""Told the prepared vectors of an index while it is filled."""
