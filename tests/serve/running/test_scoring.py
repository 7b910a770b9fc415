"""Head and detector of a bundle, against the same arithmetic written out."""

import numpy as np
import pytest

from embedkit.bundle import pack_arrays
from embedkit.detect.detector import Observation, detectors
from embedkit.detect.threshold import Threshold
from embedkit.errors import BundleDamaged
from embedkit.runtime.local import load
from embedkit.serve.running.scoring import Scoring

SIDE, CHANNELS, DIM = 4, 3, 8


@pytest.fixture
def rows(rng):
    features = rng.standard_normal((6, DIM)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return {"features": features, "embedding": unit}


@pytest.fixture
def fitted(rng):
    known = rng.standard_normal((80, DIM)).astype(np.float32)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    return detectors.get("knn")().fit(Observation(known, known))


def test_class_is_the_softmax_of_the_head(tiny_models, rows):
    local = load(tiny_models / "tiny" / "1")
    scoring = Scoring.load(local)
    assert scoring.answers == ("class",)
    features = rows["features"]
    scoring.add_to(rows, frozenset({"class"}))
    assert local.head is not None
    logits = features.astype(np.float64) @ local.head.weight.T + local.head.bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rows["probabilities"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(rows["labels"], expected.argmax(axis=1))
    assert rows["labels"].dtype == np.int64


def test_only_what_is_wanted_is_added(tiny_models, rows):
    Scoring.load(load(tiny_models / "tiny" / "1")).add_to(rows, frozenset({"embedding"}))
    assert set(rows) == {"features", "embedding"}


def test_the_score_is_the_detectors_own(tmp_path, write_tiny, rows, fitted):
    threshold = Threshold(0.5, 0.4, 0.6, 0.95, 0.95, 100)
    arrays = {**fitted.state(), **threshold.to_arrays()}
    write_tiny(tmp_path, extra={"detectors/knn.npz": pack_arrays(arrays)})
    scoring = Scoring.load(load(tmp_path / "tiny" / "1"))
    assert scoring.answers == ("class", "ood_score")
    assert (scoring.detector_name, scoring.threshold) == ("knn", threshold)
    scoring.add_to(rows, frozenset({"ood_score"}))
    expected = fitted.score(Observation(rows["embedding"], rows["features"]))
    np.testing.assert_array_equal(rows["ood_score"], expected)
    assert "labels" not in rows


def test_a_damaged_detector_is_named(tmp_path, write_tiny):
    wrong = pack_arrays({"other": np.zeros(3)})
    write_tiny(tmp_path, extra={"detectors/knn.npz": wrong})
    with pytest.raises(BundleDamaged, match="knn"):
        Scoring.load(load(tmp_path / "tiny" / "1"))
