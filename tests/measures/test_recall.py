import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.measures.recall import mean_interval, share_found


def test_shares_by_hand():
    exact = [[0.9, 0.8, 0.7], [0.5, 0.4, 0.3], [2.0]]
    served = [[0.9, 0.7, 0.6], [0.5, 0.4, 0.3], []]
    np.testing.assert_allclose(share_found(served, exact), [2 / 3, 1, 0])


def test_ties_are_no_misses_and_surplus_hits_no_gain():
    exact = [[0.9, 0.8, 0.8]]
    assert share_found([[0.9, 0.8, 0.8 - 1e-8]], exact)[0] == 1
    assert share_found([[0.9, 0.8, 0.8, 0.8]], exact)[0] == 1
    # Squared distances are large negative numbers.
    assert share_found([[-5e6]], [[-5e6 + 1]])[0] == 1
    assert share_found([[-5e6]], [[-4e6]])[0] == 0


def test_it_is_the_overlap_of_ids_where_no_scores_are_equal(rng):
    scores = rng.random((50, 40))
    exact = [sorted(row, reverse=True)[:10] for row in scores.tolist()]
    served = [sorted(row[:25], reverse=True)[:10] for row in scores.tolist()]
    overlap = [len(set(a) & set(b)) / 10 for a, b in zip(served, exact, strict=True)]
    np.testing.assert_allclose(share_found(served, exact), overlap)


def test_intervals():
    low, high = mean_interval(np.ones(50))
    assert (low, high) == (pytest.approx(0.025 ** (1 / 50)), 1)
    assert mean_interval(np.array([0.5])) == (0, 1)
    shares = np.array([0.8, 1.0] * 50)
    low, high = mean_interval(shares)
    assert high - low == pytest.approx(2 * 1.96 * shares.std(ddof=1) / 10, rel=1e-3)
    assert low < 0.9 < high


def test_a_query_without_neighbours_is_refused():
    with pytest.raises(InvalidInput, match="expected neighbours"):
        share_found([[1.0], [1.0]], [[1.0], []])
    with pytest.raises(InvalidInput, match="2 queries, got 1 lists"):
        share_found([[1.0], [1.0]], [[1.0]])
