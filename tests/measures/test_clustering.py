import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from embedkit.errors import InvalidInput
from embedkit.measures.clustering import (
    adjusted_rand,
    contingency,
    normalised_mutual_information,
    purity,
)

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 3)), min_size=2, max_size=60)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_they_agree_with_scikit_learn(pairs):
    labels, groups = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    table = contingency(labels, groups)
    np.testing.assert_array_equal(table, contingency_matrix(labels, groups))
    one = len(set(labels)) == 1 and len(set(groups)) == 1
    if not one:  # scikit-learn says 1 where there is nothing to agree on
        nmi = normalized_mutual_info_score(labels, groups)
        assert normalised_mutual_information(table) == pytest.approx(nmi, abs=1e-9)
        if table.shape != (len(labels), len(labels)):
            ari = adjusted_rand_score(labels, groups)
            assert adjusted_rand(table) == pytest.approx(ari, abs=1e-9)
    assert purity(table) == table.max(axis=0).sum() / len(labels)


def test_several_tables_at_once(rng):
    tables = rng.integers(0, 9, (5, 3, 4)).astype(float) + 1
    for measure in (normalised_mutual_information, adjusted_rand, purity):
        np.testing.assert_allclose(measure(tables), [measure(t) for t in tables])


def test_groups_that_say_nothing_and_groups_that_say_all():
    labels = np.repeat(np.arange(3), 6)
    nothing = contingency(labels, np.tile(np.arange(3), 6))
    everything = contingency(labels, (labels + 1) % 3)
    assert normalised_mutual_information(nothing) == pytest.approx(0, abs=1e-12)
    assert adjusted_rand(nothing) < 0
    assert purity(nothing) == pytest.approx(1 / 3)
    assert normalised_mutual_information(everything) == adjusted_rand(everything) == 1


@pytest.mark.parametrize("groups", [np.zeros(2, int), np.zeros((3, 1), int)])
def test_one_group_per_image_is_needed(groups):
    with pytest.raises(InvalidInput, match="one class and one group per image"):
        contingency(np.zeros(3, int), groups)
