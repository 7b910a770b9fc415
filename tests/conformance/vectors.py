"""Vectors, ids and the definition of each metric, for the tests of stores."""

import numpy as np

from embedkit.types import Metric

LOCAL = ("local",)


METRICS: tuple[Metric, ...] = ("cosine", "inner_product", "l2")


def vectors(rng: np.random.Generator, n: int, dim: int = 8) -> np.ndarray:
    return rng.standard_normal((n, dim)).astype(np.float32)


def names(n: int, start: int = 0) -> list[str]:
    return [f"id-{i}" for i in range(start, start + n)]


def scores_of(queries: np.ndarray, base: np.ndarray, metric: Metric) -> np.ndarray:
    """Every score in float64, from the definitions."""
    q, b = queries.astype(np.float64), base.astype(np.float64)
    if metric == "l2":
        return -((q[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
    if metric == "cosine":
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        b /= np.linalg.norm(b, axis=1, keepdims=True)
    return q @ b.T
