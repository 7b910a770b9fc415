import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_curve

from embedkit.evaluate.measurement.novelty import Separation, separation_metrics


@pytest.fixture(params=["smooth", "ties"])
def scores(request):
    rng = np.random.default_rng(0)
    known, novel = rng.normal(size=300), rng.normal(1.2, 1, size=140)
    return (known.round(), novel.round()) if request.param == "ties" else (known, novel)


def test_average_precision_agrees_with_sklearn(scores):
    known, novel = scores
    pooled, truth = np.concatenate(scores), np.repeat([0, 1], [300, 140])
    metrics = separation_metrics(known, novel, "far.knn", resamples=20)
    assert metrics["far.knn.aupr_ood_positive"].value == pytest.approx(
        average_precision_score(truth, pooled), abs=1e-12
    )
    assert metrics["far.knn.aupr_id_positive"].value == pytest.approx(
        average_precision_score(1 - truth, -pooled), abs=1e-12
    )


def test_both_conventions_of_fpr95(scores):
    known, novel = scores
    pooled, truth = np.concatenate(scores), np.repeat([0, 1], [300, 140])
    metrics = separation_metrics(known, novel, "p", resamples=20)
    fpr, tpr, _ = roc_curve(truth, pooled, drop_intermediate=False)  # OpenOOD's convention
    assert metrics["p.fpr95_ood_positive"].value == fpr[np.argmax(tpr >= 0.95)]
    threshold = np.sort(known)[285 - 1]  # ceil(0.95 * 300) known images are accepted
    assert metrics["p.fpr95_id_positive"].value == np.mean(novel <= threshold)


def test_the_two_conventions_of_fpr95_differ():
    known = np.r_[np.zeros(90), np.full(10, 5.0)]
    novel = np.r_[np.full(90, 4.0), np.full(10, 6.0)]
    metrics = separation_metrics(known, novel, "p", resamples=20)
    assert metrics["p.fpr95_id_positive"].value == 0.9
    assert metrics["p.fpr95_ood_positive"].value == 0.1


def test_perfect_and_constant_scores():
    perfect = separation_metrics(np.zeros(50), np.ones(30), "p", resamples=20)
    assert {n.removeprefix("p."): m.value for n, m in perfect.items()} == {
        "auroc": 1,
        "aupr_id_positive": 1,
        "aupr_ood_positive": 1,
        "fpr95_id_positive": 0,
        "fpr95_ood_positive": 0,
    }
    constant = separation_metrics(np.zeros(50), np.zeros(30), "p", resamples=20)
    assert constant["p.auroc"].value == 0.5
    assert constant["p.fpr95_id_positive"].value == constant["p.fpr95_ood_positive"].value == 1
    assert constant["p.aupr_ood_positive"].value == 30 / 80


def test_counting_an_image_twice_is_having_it_twice(scores):
    known, novel = scores
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 3, len(known)), rng.integers(0, 3, len(novel))
    repeated = Separation(np.repeat(known, counts[0]), np.repeat(novel, counts[1]))
    np.testing.assert_allclose(Separation(known, novel).values(counts), repeated.values())


def test_intervals_hold_the_value_and_are_reproducible(scores):
    metrics = separation_metrics(scores[0], scores[1], "p", resamples=300)
    for metric in metrics.values():
        assert metric.ci
        assert metric.ci[0] <= metric.value <= metric.ci[1]
        assert metric.n == 440
    assert separation_metrics(scores[0], scores[1], "p", resamples=300) == metrics


@pytest.mark.parametrize("sizes", [(300, 19), (19, 300), (300, 1)])
def test_with_few_images_only_auroc_has_an_interval(sizes):
    rng = np.random.default_rng(0)
    known, novel = rng.normal(size=sizes[0]), rng.normal(1, 1, size=sizes[1])
    metrics = separation_metrics(known, novel, "p", resamples=20)
    missing = {name for name, metric in metrics.items() if metric.ci is None}
    assert missing == set(metrics) - {"p.auroc"}
    assert all(metrics[name].ci_method == "" for name in missing)


def test_roc_runs_from_corner_to_corner(scores):
    figure = Separation(*scores).roc("knn")
    fpr, tpr = np.array(figure["fpr"]), np.array(figure["tpr"])
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert len(fpr) <= 200
    area = np.trapezoid(tpr, fpr)
    metrics = separation_metrics(scores[0], scores[1], "p", resamples=20)
    assert area == pytest.approx(metrics["p.auroc"].value, abs=2e-3)
