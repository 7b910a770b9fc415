from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from embedkit.evaluate.statistics import wilson
from embedkit.evaluate.tasks.calibration import Calibration
from embedkit.perturb.randomness import keys_of
from embedkit.testing import PerfectEmbedder


class Boastful(PerfectEmbedder):
    """Right in all but the second class, and always as sure as before."""

    def score(self, images):
        found = super().score(images)
        labels = np.where(found.labels == 1, 2, found.labels)
        shares = np.float32(0.85) * np.eye(4, dtype=np.float32)[labels] + np.float32(0.0375)
        return replace(found, labels=labels, probabilities=shares)


def test_overconfidence_is_seen_and_mended(make_context, source):
    result = Calibration().run(make_context(served=Boastful(source)))
    labels, shares = result.items["labels"], result.items["served.probabilities"]
    assert shares.shape == (80, 4)
    gap = abs(shares.max(axis=1).mean() - (shares.argmax(axis=1) == labels).mean())
    ece = result.metrics["served.ece"].value
    assert ece == pytest.approx(gap, abs=0.02)
    assert result.metrics["served.temperature"].value > 1.2
    assert result.metrics["served.scaled.nll"].value < result.metrics["served.nll"].value
    assert result.metrics["served.scaled.ece"].value < ece
    expected = np.mean(((shares - np.eye(4)[labels]) ** 2).sum(axis=1))
    assert result.metrics["served.brier"].value == pytest.approx(expected)
    assert set(result.figures) == {"served", "linear"}


def test_the_probe_is_a_logistic_regression(make_context, noisy, embedded):
    context = make_context(served=noisy)
    (train, y), (test, wanted) = embedded(context.train), embedded(context.test)
    result = Calibration().run(context)
    assert "no served: expected a model that answers with classes" in result.warnings[0]
    x = (train - train.mean(axis=0)) / train.std(axis=0)
    at = (test - train.mean(axis=0)) / train.std(axis=0)
    fits = [LogisticRegression(C=c, max_iter=2000).fit(x, y) for c in (0.01, 0.1, 1, 10)]
    gaps = [
        np.abs(fit.predict_proba(at) - result.items["linear.probabilities"]).max()
        for fit in fits
    ]
    assert min(gaps) < 2e-2
    correct = int((result.items["linear.probabilities"].argmax(axis=1) == wanted).sum())
    assert wilson(correct, 80)[0] > 0.3


def test_scaling_uses_the_other_half(make_context, noisy):
    """Labels of one half decide nothing about that half's own temperature."""
    context = make_context(served=noisy)
    before = Calibration().run(context).items
    half = np.argsort(keys_of(context.test.ids, context.seed))[:40]
    labels = context.test.labels.copy()
    labels[half] = (labels[half] + 1) % 4
    changed = make_context(served=noisy, test=replace(context.test, labels=labels, digest=""))
    after = Calibration().run(changed).items
    np.testing.assert_allclose(after["linear.scaled"][half], before["linear.scaled"][half])
    other = np.setdiff1d(np.arange(80), half)
    assert np.abs(after["linear.scaled"][other] - before["linear.scaled"][other]).max() > 0.01


def test_scores_of_a_handful_of_images_have_no_impossible_interval(make_context, source):
    few = source.dataset(80, seed=1).subset([0, 1, 2, 3, 4, 6, 8])
    metrics = Calibration().run(make_context(served=Boastful(source), test=few)).metrics
    for kind in ("brier", "nll"):
        metric = metrics[f"served.{kind}"]
        assert metric.ci[0] == 0 < metric.value < metric.ci[1]
