"""qdrant-edge in this process, searching on one thread: HNSW, durable on disk."""

import tempfile

import numpy as np
import qdrant_edge as edge
from index_loop import run

AT_ONCE = 1000


class Engine:
    """HNSW of 16 connections; the value is ``hnsw_ef``."""

    def build(self, stored: np.ndarray) -> None:
        """Store every vector and optimise."""
        self._folder = tempfile.TemporaryDirectory(prefix="peer-")
        config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(size=stored.shape[1], distance=edge.Distance.Dot),
            hnsw_config=edge.HnswIndexConfig(
                m=16, ef_construct=100, full_scan_threshold=100, max_indexing_threads=1
            ),
            optimizers=edge.EdgeOptimizersConfig(
                indexing_threshold=100, default_segment_number=1
            ),
            max_search_threads=1,
        )
        self._shard = edge.EdgeShard.create(self._folder.name, config)
        for start in range(0, len(stored), AT_ONCE):
            part = stored[start : start + AT_ONCE].tolist()
            points = [edge.Point(start + i, vector) for i, vector in enumerate(part)]
            self._shard.update(edge.UpdateOperation.upsert_points(points))
        self._shard.flush()
        self._shard.optimize()

    def search(self, queries: np.ndarray, k: int, value: int) -> list:
        """Rows of each query's neighbours."""
        params = edge.SearchParams(hnsw_ef=value)
        asked = [
            edge.QueryRequest(limit=k, query=edge.Query.Nearest(q), params=params)
            for q in queries.tolist()
        ]
        if len(asked) == 1:
            return [[point.id for point in self._shard.query(asked[0])]]
        answers = self._shard.query_batch(edge.QueryBatchRequest(asked))
        return [[point.id for point in points] for points in answers]

    def close(self) -> None:
        """Give the folder back."""
        self._shard.close()
        self._folder.cleanup()


run(Engine())
