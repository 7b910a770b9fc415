"""The vectors of a benchmark: a seeded mixture of clusters, or embeddings from a file."""

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.types import Embeddings

__all__ = ["Ids", "Vectors", "clustered", "from_file", "recall", "truth"]

Ids = npt.NDArray[np.int64]
"""Row numbers of the neighbours of each query, (n, k); -1 where there is none."""

# Noise about a cluster's centre, as long as the centre: neighbours come from several clusters.
_SPREAD = 1.0
# Dimensions in which a cluster is about equally wide; beyond, its variance falls as 1 / j.
_WIDE = 16
# Of the logarithm of the clusters' sizes: the largest tenth holds a third of the vectors.
_UNEVEN = 0.8
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class Vectors:
    """What is stored, and what is asked; all of unit length.

    Attributes:
        name: What the report calls them.
        stored: (n, d) float32.
        queries: (m, d) float32, of the same kind and none of them stored.
    """

    name: str
    stored: Embeddings
    queries: Embeddings


def clustered(n: int, dim: int, *, queries: int = 1000, seed: int = 0) -> Vectors:
    """Draw vectors from a mixture of sqrt(n) clusters of unequal sizes.

    Each cluster is wide in about 16 directions and ever narrower in the others, as embeddings
    are; isotropic noise would have no neighbours to find.

    Args:
        n: Vectors to store, at least 1.
        dim: Dimensions, at least 2.
        queries: Vectors to ask for.
        seed: Of every random choice.
    """
    if n < 1 or dim < 2 or queries < 1:
        raise InvalidInput(
            f"expected n >= 1, dim >= 2 and queries >= 1, got {n}, {dim} and {queries}"
        )
    rng = np.random.default_rng([seed, n, dim])
    count = max(4, round(n**0.5))
    centres = unit(rng.standard_normal((count, dim), np.float32))
    share = np.exp(_UNEVEN * rng.standard_normal(count))
    widths = 1 / np.sqrt(1 + np.arange(dim) / _WIDE)
    widths *= _SPREAD / np.sqrt((widths**2).sum())
    # One rotation for all clusters, so that no single coordinate matters more than another.
    rotation, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    shape = (widths[:, None] * rotation).astype(np.float32)
    made = np.empty((n + queries, dim), np.float32)
    for start in range(0, len(made), _ROWS_AT_ONCE):
        part = made[start : start + _ROWS_AT_ONCE]
        which = rng.choice(count, len(part), p=share / share.sum())
        noise = rng.standard_normal((len(part), dim), np.float32) @ shape
        part[:] = unit(centres[which] + noise)
    return Vectors("clusters", made[:n], made[n:])


def from_file(path: Path, *, queries: int = 1000, seed: int = 0) -> Vectors:
    """Read embeddings from an ``.npz`` file and keep some of them back as queries.

    Args:
        path: Its only array of two dimensions, or the one named ``embeddings``, is taken.
        queries: Rows to keep back; at most a tenth of them.
        seed: Of the choice.

    Raises:
        InvalidInput: If there is no such array.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    tables = {k: a for k, a in arrays.items() if a.ndim == 2 and a.dtype.kind == "f"}
    name = "embeddings" if "embeddings" in tables else next(iter(tables), "")
    if not name or (len(tables) > 1 and name != "embeddings"):
        found = {key: f"{a.dtype} {a.shape}" for key, a in arrays.items()}
        raise InvalidInput(f"expected one array 'embeddings' (n, d) in {path}, got {found}")
    table = unit(tables[name])
    table = table[table.any(axis=1)]
    order = np.random.default_rng(seed).permutation(len(table))
    held = min(queries, len(table) // 10)
    if not held:
        raise InvalidInput(f"expected at least 10 embeddings in {path}, got {len(table)}")
    stored = np.ascontiguousarray(table[np.sort(order[held:])])
    return Vectors(path.stem, stored, np.ascontiguousarray(table[order[:held]]))


def truth(vectors: Vectors, k: int) -> Ids:
    """The ``k`` stored vectors with the largest inner product of each query, exactly."""
    _, rows = faiss.knn(vectors.queries, vectors.stored, k, faiss.METRIC_INNER_PRODUCT)
    return np.asarray(rows, np.int64)


def recall(found: Ids, true: Ids) -> float:
    """The mean share of the true neighbours that were found, a fraction in [0, 1]."""
    hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), true.tolist(), strict=True)]
    return sum(hits) / true.size
