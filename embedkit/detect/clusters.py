"""k-means on known images, for detectors that want groups where there are no labels."""

import numpy as np

from embedkit.detect.vectors import content_order
from embedkit.types import Embeddings, Labels

__all__ = ["kmeans"]

_STEPS = 50
_MOST_IMAGES = 20_000


def kmeans(vectors: Embeddings, clusters: int, *, seed: int = 0) -> Labels:
    """Assign each of (n, d) vectors to one of at most ``clusters`` groups.

    Lloyd's iterations from k-means++ seeds (Arthur and Vassilvitskii, 2007), on at most 20,000
    vectors, taken in an order that their content decides, so that the order given does not
    matter.

    Args:
        vectors: (n, d), n at least 1.
        clusters: Groups, at least 1; more than n means n.
        seed: Of the first centres.

    Returns:
        (n,) group of each vector; a group may have lost all of its vectors.
    """
    values = np.ascontiguousarray(vectors, dtype=np.float32)
    chosen = values[content_order(values)[:_MOST_IMAGES]]
    rng = np.random.default_rng(seed)
    centres = _seeds(chosen, min(clusters, len(chosen)), rng)
    groups = _assign(chosen, centres)
    for _ in range(_STEPS):
        member = (groups == np.arange(len(centres))[:, None]).astype(np.float32)
        counts = member.sum(axis=1, keepdims=True)
        moved = np.where(counts > 0, member @ chosen / np.maximum(counts, 1), centres)
        before, centres = groups, moved
        groups = _assign(chosen, centres)
        if np.array_equal(groups, before):
            break
    return _assign(values, centres)


def _seeds(chosen: Embeddings, count: int, rng: np.random.Generator) -> Embeddings:
    """The first centres: each far from the ones before, by chance in the squared distance."""
    picked = [int(rng.integers(len(chosen)))]
    nearest = ((chosen - chosen[picked[0]]) ** 2).sum(axis=1, dtype=np.float64)
    while len(picked) < count and nearest.sum() > 0:
        total = np.cumsum(nearest)
        picked.append(int(np.searchsorted(total, rng.random() * total[-1], side="right")))
        away = ((chosen - chosen[picked[-1]]) ** 2).sum(axis=1, dtype=np.float64)
        nearest = np.minimum(nearest, away)
    return chosen[picked].copy()


def _assign(vectors: Embeddings, centres: Embeddings) -> Labels:
    """The nearest centre of each vector; ||v||^2 is the same for all centres."""
    lengths = (centres**2).sum(axis=1)
    return np.asarray((lengths - 2 * vectors @ centres.T).argmin(axis=1), dtype=np.int64)
