"""embedkit's own store in this process, on one thread and durable: no server."""

import os
import sys
import tempfile

import faiss
import numpy as np
from index_loop import run

from embedkit.bench.index.kinds import kind_named
from embedkit.retrieve.store import Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection

_ROWS_AT_ONCE = 32_768
_BUILD_LIMIT_S = 3600.0


class Engine:
    """A collection of the kind that ``KIND`` names; the value is its knob's."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="embedkit-")
        self._kind = kind_named(os.environ["KIND"])
        self._store = LocalStore(self._folder.name)
        faiss.omp_set_num_threads(1)

    def build(self, stored: np.ndarray) -> None:
        """Commit every vector, and wait for the index."""
        kind = self._kind.name
        self._store.create(Collection("c", dim=stored.shape[1], metric="cosine", kind=kind))
        for start in range(0, len(stored), _ROWS_AT_ONCE):
            part = stored[start : start + _ROWS_AT_ONCE]
            self._store.upsert("c", [str(start + i) for i in range(len(part))], part)
        if not self._store.wait_until_built("c", _BUILD_LIMIT_S):
            sys.exit(f"expected the index within {_BUILD_LIMIT_S:.0f} s, got none")

    def search(self, queries: np.ndarray, k: int, value: int) -> list:
        """Rows of each query's neighbours."""
        params = self._kind.params(value)
        found = self._store.search("c", Query(queries, k, params=params))
        return [list(map(int, hits.ids)) for hits in found.hits]

    def close(self) -> None:
        """Close the files and remove them."""
        self._store.close()
        self._folder.cleanup()


run(Engine())
