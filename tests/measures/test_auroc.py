import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from embedkit.errors import InvalidInput
from embedkit.measures.auroc import (
    aupr,
    auroc,
    fpr95_id_positive,
    fpr95_ood_positive,
    fpr_at_tpr,
    roc_curve,
)

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


def test_both_sides_and_both_estimators_agree_with_scikit_learn(scores):
    labels, values = flat(*scores)
    for positive, truth, ranking in (("novel", labels, values), ("known", 1 - labels, -values)):
        precision, recall, _ = metrics.precision_recall_curve(truth, ranking)
        assert aupr(*scores, positive=positive) == pytest.approx(
            metrics.auc(recall, precision), abs=1e-12
        )
        stepwise = aupr(*scores, positive=positive, estimator="average_precision")
        expected = metrics.average_precision_score(truth, ranking)
        assert stepwise == pytest.approx(expected, abs=1e-12)


def test_the_curve_agrees_with_scikit_learn(scores):
    labels, values = flat(*scores)
    fpr, tpr, thresholds = metrics.roc_curve(labels, values, drop_intermediate=False)
    curve = roc_curve(*scores)
    np.testing.assert_allclose(curve.fpr, fpr, atol=1e-12)
    np.testing.assert_allclose(curve.tpr, tpr, atol=1e-12)
    finite = np.nan_to_num(curve.thresholds[1:], posinf=1e9, neginf=-1e9)
    np.testing.assert_array_equal(finite, thresholds[1:])
    assert curve.thresholds[0] == np.inf


def test_both_conventions_of_fpr95_agree_with_scikit_learns_curves(scores):
    labels, values = flat(*scores)
    fpr, tpr, _ = metrics.roc_curve(labels, values, drop_intermediate=False)
    assert fpr95_ood_positive(*scores) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])
    fpr, tpr, _ = metrics.roc_curve(1 - labels, -values, drop_intermediate=False)
    assert fpr95_id_positive(*scores) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])


def test_the_two_conventions_differ():
    known = np.r_[np.zeros(90), np.full(10, 5.0)]
    novel = np.r_[np.full(90, 4.0), np.full(10, 6.0)]
    assert fpr95_id_positive(known, novel) == 0.9
    assert fpr95_ood_positive(known, novel) == 0.1


def test_perfect_and_worst_scores():
    low, high = np.arange(5.0), np.arange(5.0) + 9
    assert (auroc(low, high), fpr95_id_positive(low, high)) == (1.0, 0.0)
    assert (auroc(high, low), fpr95_id_positive(high, low)) == (0.0, 1.0)
    assert aupr(low, high, positive="novel") == aupr(low, high, positive="known") == 1.0


@settings(deadline=None)
@given(
    known=st.lists(st.integers(-5, 5), min_size=1, max_size=30),
    novel=st.lists(st.integers(-5, 5), min_size=1, max_size=30),
    tpr=st.floats(0.01, 1.0),
)
def test_the_threshold_accepts_enough_known_images_and_no_smaller_one_does(known, novel, tpr):
    values, others = np.array(known, float), np.array(novel, float)
    fpr = fpr_at_tpr(values, others, tpr=tpr)
    enough = [t for t in values if np.sum(values <= t) >= tpr * len(values) - 1e-9]
    assert fpr == np.mean(others <= min(enough))


@pytest.mark.parametrize("count", [20, 40, 60, 100, 1000])
def test_a_share_that_is_a_whole_number_is_not_rounded_up(count):
    known = np.arange(count, dtype=float)
    for percent in range(1, 101):
        if percent * count % 100 == 0:
            needed = percent * count // 100
            assert fpr_at_tpr(known, known, tpr=percent / 100) == needed / count


def test_changing_the_unit_changes_nothing(scores):
    known, novel = scores
    scaled = (3.0 * known + 1.0, 3.0 * novel + 1.0)
    assert auroc(*scaled) == auroc(known, novel)
    assert fpr95_id_positive(*scaled) == fpr95_id_positive(known, novel)
    assert fpr95_ood_positive(*scaled) == fpr95_ood_positive(known, novel)


def test_integers_and_lists_are_scores_too():
    assert auroc([1, 2], [3]) == 1.0


@pytest.mark.parametrize("measure", [auroc, fpr95_id_positive, fpr95_ood_positive, roc_curve])
@pytest.mark.parametrize(
    ("known", "novel", "message"),
    [
        ([], [1.0], "expected the known scores"),
        ([1.0], [], "expected the novel scores"),
        ([1.0], [np.nan, 2.0], "got shape .2,. with 1 that are not numbers"),
        ([[1.0]], [1.0], r"got shape \(1, 1\)"),
    ],
)
def test_sets_that_are_none_are_refused(measure, known, novel, message):
    with pytest.raises(InvalidInput, match=message):
        measure(np.array(known), np.array(novel))


@pytest.mark.parametrize("tpr", [0.0, 1.01, -1.0, float("nan")])
def test_a_rate_outside_its_range_is_refused(tpr):
    with pytest.raises(InvalidInput, match=r"a true-positive rate in \(0, 1\], got"):
        fpr_at_tpr(np.zeros(3), np.zeros(3), tpr=tpr)


@pytest.mark.parametrize(
    "option", [{"positive": "ood"}, {"positive": "novel", "estimator": "simpson"}]
)
def test_an_unknown_option_is_refused(option):
    with pytest.raises(
        InvalidInput, match="expected positive 'novel' or 'known' and estimator"
    ):
        aupr(np.zeros(3), np.zeros(3), **option)
