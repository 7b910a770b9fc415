"""Our votes, probes and scores against scikit-learn's."""

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    ndcg_score,
    normalized_mutual_info_score,
    roc_auc_score,
    roc_curve,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from embedkit.detect.detector import Observation
from embedkit.detect.detectors.mahalanobis import Mahalanobis
from embedkit.detect.detectors.relative_mahalanobis import RelativeMahalanobis
from embedkit.evaluate.measurement.novelty import separation_metrics
from embedkit.measures.auroc import auroc
from embedkit.measures.calibration import brier, negative_log_likelihood
from embedkit.measures.clustering import (
    adjusted_rand,
    contingency,
    normalised_mutual_information,
)
from embedkit.measures.knn import weighted_knn
from embedkit.measures.probes import naive_bayes, nearest_centroid
from embedkit.measures.ranking import average_precision, ndcg

pytestmark = pytest.mark.peer

CLASSES, DIM, TEMPERATURE = 5, 12, 0.07


@pytest.fixture(scope="module")
def sets():
    """Unit vectors around five overlapping centres: train and test, with labels."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(CLASSES, DIM))
    found = []
    for n in (400, 200):
        labels = rng.integers(0, CLASSES, n)
        z = centres[labels] + 1.2 * rng.normal(size=(n, DIM))
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        found += [z.astype(np.float32), labels]
    return found


@pytest.fixture(scope="module")
def scores():
    """Novelty of known and novel images, with ties."""
    rng = np.random.default_rng(4)
    return rng.normal(size=500).round(2), (rng.normal(size=300) + 1).round(2)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_weighted_neighbours(sets, k):
    train, labels, test, _ = sets
    theirs = KNeighborsClassifier(
        k,
        weights=lambda distance: np.exp((1 - distance) / TEMPERATURE),
        metric="cosine",
        algorithm="brute",
    ).fit(train, labels)
    shares = np.sort(theirs.predict_proba(test), axis=1)
    # Where two classes have the same weight either answer is right.
    clear = shares[:, -1] - shares[:, -2] > 1e-5
    ours = weighted_knn(train, labels, test, ks=(k,), classes=CLASSES)[k]
    assert clear.mean() > 0.95
    assert (ours == theirs.predict(test))[clear].all()


def test_class_means_and_naive_bayes(sets):
    train, labels, test, _ = sets
    ours = naive_bayes(train, labels, test, classes=CLASSES)
    assert (ours == GaussianNB().fit(train, labels).predict(test)).all()
    # Unit means: the nearest by distance is the nearest by cosine.
    centres = NearestCentroid().fit(train, labels).centroids_
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    distances = np.linalg.norm(test[:, None] - centres, axis=2)
    assert (
        nearest_centroid(train, labels, test, classes=CLASSES) == distances.argmin(axis=1)
    ).all()


def test_areas_under_curves(scores):
    known, novel = scores
    truth = np.r_[np.zeros(len(known)), np.ones(len(novel))]
    both = np.r_[known, novel]
    found = separation_metrics(known, novel, "p", resamples=20)
    ours = {name: metric.value for name, metric in found.items()}
    area = pytest.approx(roc_auc_score(truth, both), abs=1e-12)
    assert auroc(known, novel) == ours["p.auroc"] == area
    for positive, wanted, sign in (("ood", truth, 1), ("id", 1 - truth, -1)):
        precision = average_precision_score(wanted, sign * both)
        assert ours[f"p.aupr_{positive}_positive"] == pytest.approx(precision, abs=1e-12)
        false, true, _ = roc_curve(wanted, sign * both, drop_intermediate=False)
        accepted = pytest.approx(false[np.argmax(true >= 0.95)])
        assert ours[f"p.fpr95_{positive}_positive"] == accepted


def test_clusters(sets):
    labels = sets[1]
    groups = (labels + np.random.default_rng(5).integers(0, 2, len(labels))) % 4
    table = contingency(labels, groups).astype(float)
    nmi = normalized_mutual_info_score(labels, groups)
    assert normalised_mutual_information(table) == pytest.approx(nmi, abs=1e-12)
    assert adjusted_rand(table) == pytest.approx(adjusted_rand_score(labels, groups), abs=1e-12)


def test_rankings():
    rng = np.random.default_rng(6)
    relevant = rng.random((30, 40)) < 0.2
    relevant[:, 0] |= ~relevant.any(axis=1)
    falling = np.tile(np.arange(40, 0, -1.0), (30, 1))
    total = relevant.sum(axis=1)
    ours = average_precision(relevant, total)
    theirs = [average_precision_score(r, s) for r, s in zip(relevant, falling, strict=True)]
    assert ours == pytest.approx(theirs, abs=1e-12)
    expected = ndcg_score(relevant.astype(float), falling, k=10)
    assert ndcg(relevant, total, 10).mean() == pytest.approx(expected, abs=1e-12)


def test_scores_of_probabilities(sets):
    labels = sets[1]
    logits = np.random.default_rng(7).normal(size=(len(labels), CLASSES))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    nll = negative_log_likelihood(shares, labels).mean()
    assert nll == pytest.approx(log_loss(labels, shares), abs=1e-12)
    expected = sum(brier_score_loss(labels == c, shares[:, c]) for c in range(CLASSES))
    assert brier(shares, labels).mean() == pytest.approx(expected, abs=1e-12)


def test_mahalanobis_by_its_formula(sets):
    train, labels, test, _ = sets
    seen = Observation(train, features=train, labels=labels)
    asked = Observation(test, features=test)
    means = np.stack([train[labels == c].mean(axis=0) for c in range(CLASSES)])
    pooled = EmpiricalCovariance(assume_centered=True).fit(train - means[labels])
    whole = EmpiricalCovariance().fit(train)
    nearest = np.min([pooled.mahalanobis(test - m) for m in means], axis=0)
    ours = Mahalanobis(shrinkage="none").fit(seen).score(asked)
    assert ours == pytest.approx(nearest, rel=1e-4)
    relative = RelativeMahalanobis(shrinkage="none").fit(seen).score(asked)
    assert relative == pytest.approx(nearest - whole.mahalanobis(test), rel=1e-4, abs=1e-4)
