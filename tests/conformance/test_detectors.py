"""What every detector promises, by name."""

import io
from pathlib import Path

import numpy as np
import pytest

import embedkit.detect.detectors
from embedkit.bundle import pack_arrays
from embedkit.detect.detector import Observation, detectors, load_detector
from embedkit.errors import InvalidInput

NAMES = detectors.names()


def auroc(known, novel):
    """The probability that a novel image scores higher, ties counting half."""
    difference = novel[:, None] - known[None, :]
    return np.mean((difference > 0) + 0.5 * (difference == 0))


def observe(rng, n, centre, *, classes=4, d=12):
    """Unit vectors around ``classes`` directions that ``centre`` chooses, with every field."""
    means = np.random.default_rng(centre).normal(size=(classes, d))
    labels = rng.integers(0, classes, n)
    features = means[labels] + 0.25 * rng.normal(size=(n, d))
    embeddings = features / np.linalg.norm(features, axis=1, keepdims=True)
    return Observation(
        embeddings.astype(np.float32),
        features=features.astype(np.float32),
        logits=(features @ means.T).astype(np.float32),
        labels=labels,
    )


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return observe(rng, 400, centre=1), observe(rng, 150, centre=1), observe(rng, 130, centre=2)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_each_file_registers_its_own_name(name):
    files = {p.stem for p in Path(embedkit.detect.detectors.__path__[0]).glob("[!_]*.py")}
    assert name in files
    assert detectors.get(name).__module__ == f"embedkit.detect.detectors.{name}"


def test_higher_is_more_novel(name, sets):
    train, known, novel = sets
    fitted = detectors.get(name)().fit(train)
    scores = [fitted.score(s) for s in (known, novel)]
    assert auroc(*scores) > 0.95
    assert auroc(scores[0], scores[0]) == 0.5


def test_one_finite_score_per_image(name, sets):
    train, known, _ = sets
    scores = detectors.get(name)().fit(train).score(known)
    assert scores.shape == (len(known),)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()


def test_one_image_scores_as_it_does_in_a_batch(name, sets):
    train, known, _ = sets
    fitted = detectors.get(name)().fit(train)
    alone = Observation(
        known.embeddings[3:4], features=known.features[3:4], logits=known.logits[3:4]
    )
    np.testing.assert_allclose(fitted.score(alone), fitted.score(known)[3:4], rtol=1e-5)


def test_fit_does_not_depend_on_the_order(name, sets):
    train, known, _ = sets
    order = np.random.default_rng(5).permutation(len(train))
    shuffled = Observation(
        train.embeddings[order],
        features=train.features[order],
        logits=train.logits[order],
        labels=train.labels[order],
    )
    scores = [detectors.get(name)().fit(t).score(known) for t in (train, shuffled)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)


def test_fit_without_labels(name, sets):
    train, known, _ = sets
    unlabelled = Observation(train.embeddings, features=train.features, logits=train.logits)
    assert len(detectors.get(name)().fit(unlabelled).score(known)) == len(known)


def test_cannot_score_before_fit(name):
    assert not hasattr(detectors.get(name)(), "score")


def test_what_it_needs_is_enough(name, sets):
    train, known, _ = sets
    detector = detectors.get(name)()
    fitted = detector.fit(train)
    assert detector.needs
    assert detector.needs <= {"embeddings", "features", "logits"}
    for part, whole in ((detector.needs, train), (fitted.needs, known)):
        given = {field: getattr(whole, field) for field in part | {"embeddings"}}
        fitted = detector.fit(Observation(**given)) if whole is train else fitted
        assert np.isfinite(fitted.score(Observation(**given))).all()


def test_state_survives_a_bundle(name, sets):
    train, known, _ = sets
    fitted = detectors.get(name)().fit(train)
    with np.load(io.BytesIO(pack_arrays(fitted.state())), allow_pickle=False) as stored:
        restored = load_detector(name, dict(stored))
    np.testing.assert_array_equal(restored.score(known), fitted.score(known))


def test_other_dimensions_are_an_error(name, sets):
    train, known, _ = sets
    wrong = Observation(
        known.embeddings[:, :5], features=known.features[:, :5], logits=known.logits[:, :2]
    )
    with pytest.raises(InvalidInput, match=r"expected .* dimensions"):
        detectors.get(name)().fit(train).score(wrong)


def test_inputs_are_left_alone(name, sets):
    train, known, _ = sets
    before = [train.embeddings.copy(), known.embeddings.copy()]
    detectors.get(name)().fit(train).score(known)
    np.testing.assert_array_equal(train.embeddings, before[0])
    np.testing.assert_array_equal(known.embeddings, before[1])
