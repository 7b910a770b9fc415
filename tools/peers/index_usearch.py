"""usearch in this process, on one thread: HNSW with whole vectors."""

import numpy as np
from index_loop import run
from usearch.index import Index


class Engine:
    """HNSW of 16 connections; the value is ``expansion_search``."""

    def build(self, stored: np.ndarray) -> None:
        """Add every vector."""
        self._index = Index(ndim=stored.shape[1], metric="ip", dtype="f32", connectivity=16)
        self._index.add(np.arange(len(stored)), stored, threads=1)

    def search(self, queries: np.ndarray, k: int, value: int) -> list:
        """Rows of each query's neighbours."""
        self._index.expansion_search = value
        found = self._index.search(queries, k, threads=1)
        return found.keys.reshape(len(queries), -1).tolist()

    def close(self) -> None:
        """Nothing to end."""


run(Engine())
