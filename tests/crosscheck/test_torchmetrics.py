"""Our calibration and ranking numbers against torchmetrics'."""

import importlib

import numpy as np
import pytest

from embedkit.measures.auroc import auroc
from embedkit.measures.calibration import calibration_error
from embedkit.measures.ranking import average_precision, hit, ndcg, precision

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("torchmetrics")
    retrieval = importlib.import_module("torchmetrics.functional.retrieval")
    classification = importlib.import_module("torchmetrics.functional.classification")
    return retrieval, classification


@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_error_below_full_confidence(peer, bins):
    import torch

    rng = np.random.default_rng(1)
    logits = rng.normal(size=(800, 4)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = rng.integers(0, 4, 800)
    theirs = peer[1].multiclass_calibration_error(
        torch.from_numpy(shares), torch.from_numpy(labels), 4, n_bins=bins, norm="l1"
    )
    confidence = shares.max(axis=1).astype(np.float64)
    ours = calibration_error(confidence, shares.argmax(axis=1) == labels, bins=bins)
    assert confidence.max() < 1
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_full_confidence_counts_in_the_last_bin():
    # torchmetrics 1.9.0 puts a confidence of exactly 1 in a bin of its own (its issue 3510).
    confidence = np.array([0.95, 1.0, 0.95, 1.0])
    correct = np.array([True, False, True, True])
    by_hand = abs(confidence.mean() - correct.mean())
    assert calibration_error(confidence, correct, bins=10) == pytest.approx(by_hand, abs=1e-12)


def test_rankings(peer):
    import torch

    rng = np.random.default_rng(2)
    relevant = rng.random((20, 30)) < 0.3
    relevant[:, 0] |= ~relevant.any(axis=1)
    total, falling = relevant.sum(axis=1), torch.arange(30, 0, -1.0)
    rows = [torch.from_numpy(row) for row in relevant]
    pairs = [
        (average_precision(relevant, total), peer[0].retrieval_average_precision, {}),
        (precision(relevant, 5), peer[0].retrieval_precision, {"top_k": 5}),
        (hit(relevant, 5), peer[0].retrieval_hit_rate, {"top_k": 5}),
        (ndcg(relevant, total, 10), peer[0].retrieval_normalized_dcg, {"top_k": 10}),
    ]
    for ours, theirs, options in pairs:
        expected = [float(theirs(falling, row, **options)) for row in rows]
        assert ours.astype(float) == pytest.approx(expected, abs=1e-6), theirs.__name__


def test_auroc(peer):
    import torch

    rng = np.random.default_rng(3)
    known, novel = rng.random(300).round(2), (rng.random(200) ** 0.7).round(2)
    both = torch.from_numpy(np.r_[known, novel])
    truth = torch.tensor([0] * 300 + [1] * 200)
    theirs = float(peer[1].binary_auroc(both, truth))
    assert auroc(known, novel) == pytest.approx(theirs, abs=1e-6)
