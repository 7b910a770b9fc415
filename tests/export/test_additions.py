"""Heads and detectors fitted on the answers of a graph."""

import numpy as np
import pytest

from embedkit.bundle import Head, unpack_arrays
from embedkit.data.source import Dataset
from embedkit.errors import InvalidInput
from embedkit.export.additions import Additions, fit_additions


class Means:
    """A session whose features are the image's quarters; counts its passes."""

    def __init__(self) -> None:
        self.passes = 0

    def run_all(self, images, outputs):
        self.passes += 1
        features = images.reshape(len(images), 4, -1).mean(axis=2).astype(np.float32)
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        return {"embedding": features / norms, "features": features}

    def features(self, images):
        return self.run_all(images, ("features",))["features"]


@pytest.fixture
def dataset(rng: np.random.Generator) -> Dataset:
    """Three classes: which quarter of the image is bright."""
    labels = np.arange(120) % 3
    images = rng.integers(0, 60, (120, 4, 2, 1), dtype=np.uint8)
    images[np.arange(120), labels] += 150
    return Dataset("quarters", images, labels.astype(np.int64), ("top", "second", "third"))


def own_head() -> Head:
    return Head(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), ("x", "y"))


def test_the_own_head_is_the_default_unless_one_is_fitted(dataset: Dataset) -> None:
    alone = fit_additions(Means(), Additions(), own_head())
    assert set(alone.files) == set(alone.notes) == {"heads/default.npz"}
    assert alone.files["heads/default.npz"] == own_head().to_bytes()
    both = fit_additions(Means(), Additions(dataset), own_head())
    assert set(both.files) == {"heads/default.npz", "heads/own.npz"}
    assert both.files["heads/own.npz"] == own_head().to_bytes()
    assert "accuracy on held-out images 1.0000" in both.notes["heads/default.npz"]
    fitted = Head.from_arrays(unpack_arrays(both.files["heads/default.npz"]))
    assert fitted.data_digest == dataset.digest


def test_nothing_to_add_asks_the_graph_nothing() -> None:
    session = Means()
    assert fit_additions(session, Additions(), None).files == {}
    assert session.passes == 0


def test_detectors_see_the_known_images_once(dataset: Dataset) -> None:
    session = Means()
    fitted = fit_additions(session, Additions(None, ("knn", "mahalanobis"), dataset), None)
    assert set(fitted.files) == {"detectors/knn.npz", "detectors/mahalanobis.npz"}
    assert session.passes == 1
    assert "120 images of quarters" in fitted.notes["detectors/knn.npz"]


def test_additions_refuse_what_they_cannot_fit(dataset: Dataset) -> None:
    with pytest.raises(InvalidInput, match="without labels"):
        Additions(Dataset("plain", dataset.images))
    with pytest.raises(InvalidInput, match="--detector-data"):
        Additions(None, ("knn",))
    with pytest.raises(InvalidInput, match="unknown detector"):
        Additions(dataset, ("neighbours",))
