"""Weighted nearest neighbours: the usual measure of an embedding, without training anything."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import Embeddings, Labels

__all__ = ["Neighbours", "blocks", "largest", "nearest", "unit", "vote", "weighted_knn"]

Neighbours = Annotated[npt.NDArray[np.int64], "n k"]
"""Row numbers of the nearest images, best first."""

_BLOCK_BYTES = 32 * 2**20


def weighted_knn(
    train_z: Embeddings,
    train_y: Labels,
    test_z: Embeddings,
    *,
    ks: Sequence[int] = (1, 5, 20, 200),
    temperature: float = 0.07,
    classes: int,
) -> dict[int, Labels]:
    """Predict each test image's class from its neighbours' classes.

    Every neighbour with cosine ``s`` votes for its class with ``exp(s / temperature)`` (Wu et
    al. 2018, as DINO evaluates). Ties go to the smaller class, and to the smaller row number
    among neighbours. Do not put the same image in both sets.

    Args:
        train_z: (n, d) embeddings; normalised here.
        train_y: (n,) class indices.
        test_z: (m, d) embeddings; normalised here.
        ks: Numbers of neighbours, each at least 1; one above n counts as n.
        temperature: Of the vote, above 0; smaller trusts the nearest more, and infinity
            counts every neighbour alike.
        classes: Number of classes.

    Returns:
        (m,) predicted class indices for each of ``ks``.

    Raises:
        InvalidInput: If shapes do not match, a set is empty, or a value is out of range.
    """
    _check_vote(train_z, train_y, ks, temperature, classes)
    rows, cosines = nearest(train_z, test_z, min(max(ks), len(train_z)))
    return {
        k: vote(train_y[rows[:, :k]], cosines[:, :k], temperature=temperature, classes=classes)
        for k in ks
    }


def vote(
    neighbours: Labels,
    cosines: npt.NDArray[np.float32],
    *,
    temperature: float,
    classes: int,
) -> Labels:
    """The class with the largest sum of ``exp(cosine / temperature)`` among its neighbours.

    Args:
        neighbours: (m, k) class of each neighbour, best first.
        cosines: (m, k) their cosines.
        temperature: Above 0; infinity counts every neighbour alike.
        classes: Number of classes.

    Returns:
        (m,) class indices; ties go to the smaller class.
    """
    # Shifted by the best neighbour, so that a small temperature cannot overflow.
    votes = np.exp((cosines.astype(np.float64) - cosines[:, :1]) / temperature)
    return _winners(neighbours, votes, classes)


def nearest(
    train_z: Embeddings, test_z: Embeddings, k: int
) -> tuple[Neighbours, npt.NDArray[np.float32]]:
    """The ``k`` rows of ``train_z`` with the largest cosine to each row of ``test_z``.

    Args:
        train_z: (n, d) embeddings; normalised here.
        test_z: (m, d) embeddings; normalised here.
        k: Neighbours, 1 to n.

    Returns:
        Row numbers, (m, k), best first and the smaller number first among equals, and their
        cosines, (m, k) float32.

    Raises:
        InvalidInput: If shapes do not match, a set is empty, or ``k`` is out of range.
    """
    _check_pair(train_z, test_z)
    if not 1 <= k <= len(train_z):
        raise InvalidInput(f"expected 1 to {len(train_z)} neighbours, got {k}")
    bank, queries = unit(train_z), unit(test_z)
    rows = np.empty((len(queries), k), dtype=np.int64)
    cosines = np.empty((len(queries), k), dtype=np.float32)
    for block in blocks(len(queries), len(bank)):
        similarities = queries[block] @ bank.T
        rows[block] = largest(similarities, k)
        cosines[block] = np.take_along_axis(similarities, rows[block], axis=1)
    return rows, cosines


def unit(z: npt.NDArray[np.floating]) -> Embeddings:
    """Rows of length 1, float32; a row of zeros stays zero.

    Raises:
        InvalidInput: If a value is not finite.
    """
    values: Embeddings = z.astype(np.float32)
    if not np.isfinite(values).all():
        raise InvalidInput(
            f"expected finite embeddings, got {int((~np.isfinite(values)).sum())} values that "
            f"are not, in {values.shape}"
        )
    norms: Embeddings = np.linalg.norm(values, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return values / norms


def blocks(queries: int, bank: int) -> Iterator[slice]:
    """Slices of the queries whose similarities to the bank fit in 32 MiB; one row at least."""
    step = max(1, _BLOCK_BYTES // (4 * bank))
    for start in range(0, queries, step):
        yield slice(start, start + step)


def largest(similarities: npt.NDArray[np.float32], k: int) -> Neighbours:
    """Columns of the ``k`` largest values of each row, (m, k), in order; equals by column.

    Args:
        similarities: (m, n), finite.
        k: 1 to n.
    """
    rows, columns = similarities.shape
    last = np.partition(similarities, columns - k, axis=1)[:, columns - k]
    places = np.flatnonzero(similarities >= last[:, np.newaxis])
    row, column = np.divmod(places, columns)
    values = similarities.ravel()[places]
    # Of the columns equal to the last value that counts, only the first ones fit in.
    is_last = values == last[row]
    room = k - np.bincount(row[~is_last], minlength=rows)
    start = np.searchsorted(row, np.arange(rows))
    seen = np.cumsum(is_last)
    rank = seen - (seen[start] - is_last[start])[row]
    kept = ~is_last | (rank <= room[row])
    chosen, values = column[kept].reshape(rows, k), values[kept].reshape(rows, k)
    order = np.argsort(-values, axis=1, kind="stable")
    ranked: Neighbours = np.take_along_axis(chosen, order, axis=1)
    return ranked


def _winners(labels: Labels, votes: npt.NDArray[np.float64], classes: int) -> Labels:
    rows = len(labels)
    cells = labels + classes * np.arange(rows, dtype=np.int64)[:, np.newaxis]
    totals = np.bincount(cells.ravel(), weights=votes.ravel(), minlength=rows * classes)
    winners: Labels = totals.reshape(rows, classes).argmax(axis=1)
    return winners


def _check_pair(train_z: Embeddings, test_z: Embeddings) -> None:
    if train_z.ndim != 2 or test_z.ndim != 2 or train_z.shape[1] != test_z.shape[1]:
        raise InvalidInput(
            "expected embeddings (n, d) and (m, d) of the same d, got "
            f"{train_z.shape} and {test_z.shape}"
        )
    if not len(train_z) or not len(test_z):
        raise InvalidInput(
            f"expected at least one image in each set, got {len(train_z)} and {len(test_z)}"
        )


def _check_vote(
    train_z: Embeddings, train_y: Labels, ks: Sequence[int], temperature: float, classes: int
) -> None:
    if train_y.shape != (len(train_z),):
        raise InvalidInput(
            f"expected one label per training image, got {train_y.shape} for {len(train_z)}"
        )
    if train_y.size and not 0 <= train_y.min() <= train_y.max() < classes:
        raise InvalidInput(
            f"expected labels from 0 to {classes - 1}, got {train_y.min()} to {train_y.max()}"
        )
    if not ks or min(ks) < 1 or not temperature > 0:
        raise InvalidInput(
            f"expected ks of at least 1 and a temperature above 0, got {tuple(ks)} and "
            f"{temperature}"
        )
