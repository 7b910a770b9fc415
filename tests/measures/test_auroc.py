import numpy as np
import pytest
from sklearn import metrics

from embedkit.errors import InvalidInput
from embedkit.measures.auroc import auroc

SETS = ("continuous", "tied", "separated", "reversed", "equal", "single", "infinite")


@pytest.fixture(params=SETS)
def scores(request):
    """Known and novel scores of every awkward kind."""
    rng = np.random.default_rng(0)
    return {
        "continuous": (rng.normal(0, 1, 300), rng.normal(1, 1.5, 170)),
        "tied": (rng.integers(0, 5, 200) / 2.0, rng.integers(1, 6, 90) / 2.0),
        "separated": (rng.uniform(0, 1, 40), rng.uniform(2, 3, 60)),
        "reversed": (rng.uniform(2, 3, 40), rng.uniform(0, 1, 60)),
        "equal": (np.zeros(7), np.zeros(5)),
        "single": (np.array([0.3]), np.array([0.3])),
        "infinite": (np.array([-np.inf, 0.0, 1.0]), np.array([0.5, np.inf, np.inf])),
    }[request.param]


def flat(known, novel):
    """scikit-learn's form: labels with novel = 1, and scores it accepts."""
    labels = np.r_[np.zeros(len(known)), np.ones(len(novel))]
    return labels, np.nan_to_num(np.r_[known, novel], posinf=1e9, neginf=-1e9)


def test_auroc_is_the_share_of_pairs_in_the_right_order(scores):
    known, novel = scores
    pairs = np.mean([(n > k) + 0.5 * (n == k) for k in known for n in novel])
    assert auroc(known, novel) == pytest.approx(pairs, abs=1e-12)


def test_auroc_agrees_with_scikit_learn(scores):
    labels, values = flat(*scores)
    assert auroc(*scores) == pytest.approx(metrics.roc_auc_score(labels, values), abs=1e-12)


def test_perfect_and_worst_scores():
    low, high = np.arange(5.0), np.arange(5.0) + 9
    assert (auroc(low, high), auroc(high, low)) == (1.0, 0.0)


def test_changing_the_unit_changes_nothing(scores):
    known, novel = scores
    assert auroc(3.0 * known + 1.0, 3.0 * novel + 1.0) == auroc(known, novel)


def test_integers_and_lists_are_scores_too():
    assert auroc([1, 2], [3]) == 1.0


@pytest.mark.parametrize(
    ("known", "novel", "message"),
    [
        ([], [1.0], "expected the known scores"),
        ([1.0], [], "expected the novel scores"),
        ([1.0], [np.nan, 2.0], "got shape .2,. with 1 that are not numbers"),
        ([[1.0]], [1.0], r"got shape \(1, 1\)"),
    ],
)
def test_sets_that_are_none_are_refused(known, novel, message):
    with pytest.raises(InvalidInput, match=message):
        auroc(np.array(known), np.array(novel))
