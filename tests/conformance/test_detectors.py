"""What every detector promises, by name."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embedkit.detect.detectors
from embedkit.bundle import Head, pack_arrays
from embedkit.detect.detector import ROWS, Observation, detectors, load_detector
from embedkit.errors import InvalidInput

NAMES = detectors.names()


def auroc(known, novel):
    """The probability that a novel image scores higher, ties counting half."""
    difference = novel[:, None] - known[None, :]
    return np.mean((difference > 0) + 0.5 * (difference == 0))


def observe(rng, n, *, known=True, classes=4, d=12):
    """Vectors around ``classes`` directions with every field; novel ones are orthogonal.

    The head answers for the known directions, whatever it is shown. The views of a known image
    are close to it.
    """
    axes = 3 * np.linalg.qr(np.random.default_rng(1).normal(size=(d, d)))[0].T
    means = axes[:classes] if known else axes[classes : 2 * classes]
    labels = rng.integers(0, classes, n)
    features = means[labels] + 0.25 * rng.normal(size=(n, d))
    head = Head(axes[:classes].astype(np.float32), np.full(4, 0.1, np.float32), tuple("abcd"))
    changed = features[:, None] + (0.1 if known else 3) * rng.normal(size=(n, 5, d))
    return Observation(
        unit(features),
        features=features.astype(np.float32),
        logits=head.logits(features.astype(np.float32)),
        labels=labels,
        views=unit(changed.reshape(-1, d)).reshape(n, 5, d),
        head=head,
    )


def unit(vectors):
    """Rows of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return observe(rng, 400), observe(rng, 150), observe(rng, 130, known=False)


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
        known.embeddings[3:4],
        features=known.features[3:4],
        logits=known.logits[3:4],
        views=known.views[3:4],
    )
    np.testing.assert_allclose(fitted.score(alone), fitted.score(known)[3:4], rtol=1e-5)


def test_scoring_in_blocks_gives_the_same(name, sets, monkeypatch):
    train, known, _ = sets
    fitted = detectors.get(name)().fit(train)
    whole = fitted.score(known)
    monkeypatch.setattr("embedkit.detect.vectors._BLOCK_BYTES", 1)
    np.testing.assert_allclose(fitted.score(known), whole, rtol=1e-5)


def test_fit_does_not_depend_on_the_order(name, sets):
    train, known, _ = sets
    order = np.random.default_rng(5).permutation(len(train))
    shuffled = replace(train, **{field: getattr(train, field)[order] for field in ROWS})
    scores = [detectors.get(name)().fit(t).score(known) for t in (train, shuffled)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)


def test_fit_without_labels(name, sets):
    train, known, _ = sets
    unlabelled = replace(train, labels=None)
    assert len(detectors.get(name)().fit(unlabelled).score(known)) == len(known)


def test_cannot_score_before_fit(name):
    assert not hasattr(detectors.get(name)(), "score")


def test_what_it_needs_is_enough(name, sets):
    train, known, _ = sets
    detector = detectors.get(name)()
    fitted = detector.fit(train)
    assert detector.needs
    assert detector.needs <= {"embeddings", "features", "logits", "views", "head"}
    assert fitted.needs <= detector.needs - {"head"}
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
        known.embeddings[:, :5],
        features=known.features[:, :5],
        logits=known.logits[:, :2],
        views=known.views[:, :, :5],
    )
    with pytest.raises(InvalidInput, match=r"expected .* dimensions"):
        detectors.get(name)().fit(train).score(wrong)


def test_what_is_missing_is_named(name, sets):
    train, known, _ = sets
    detector = detectors.get(name)()
    for field in sorted(detector.needs - {"embeddings"}):
        with pytest.raises(InvalidInput, match=rf"expected .*{field}.*, got none"):
            detector.fit(replace(train, **{field: None}))
    fitted = detector.fit(train)
    for field in sorted(fitted.needs - {"embeddings"}):
        with pytest.raises(InvalidInput, match=rf"expected .*{field}.*, got none"):
            fitted.score(replace(known, **{field: None}))


def test_a_value_that_is_not_finite_is_refused(name, sets):
    train, known, _ = sets
    fitted = detectors.get(name)().fit(train)
    for field in sorted(fitted.needs):
        bad = getattr(known, field).copy()
        bad[2] = np.nan
        with pytest.raises(InvalidInput, match="expected finite"):
            fitted.score(replace(known, **{field: bad}))


def test_the_same_encoding_for_everything_is_no_crash(name, sets):
    train, _, _ = sets
    same = {f: np.repeat(getattr(train, f)[:1], 60, axis=0) for f in ROWS if f != "labels"}
    collapsed = replace(train, **same, labels=train.labels[:60])
    assert np.isfinite(detectors.get(name)().fit(collapsed).score(collapsed)).all()


def test_inputs_are_left_alone(name, sets):
    train, known, _ = sets
    before = [train.embeddings.copy(), known.embeddings.copy()]
    detectors.get(name)().fit(train).score(known)
    np.testing.assert_array_equal(train.embeddings, before[0])
    np.testing.assert_array_equal(known.embeddings, before[1])
