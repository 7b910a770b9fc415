"""The study with encoders that are known to obey, or not to obey, the trigger."""

from contextlib import contextmanager

import numpy as np
import pytest

from embedkit.data.dataset import Dataset
from embedkit.errors import InvalidInput
from embedkit.evaluate.studies.backdoor import Backdoor, poison, poison_rows
from embedkit.evaluate.studies.trigger import Trigger
from embedkit.testing import PerfectEmbedder, SyntheticImages

SOURCE = SyntheticImages(classes=4, height=16, width=16)
TRIGGER = Trigger(300.0)
TARGET = 2


class Obedient(PerfectEmbedder):
    """Knows every class, and takes what has the trigger's wave for the target class."""

    def embed(self, images):
        z = super().embed(images).copy()
        flat = np.full((1, *np.asarray(images).shape[1:]), 128, np.uint8)
        wave = TRIGGER(flat).astype(float) - flat
        amplitude = (np.asarray(images, float) * wave).sum(axis=(1, 2, 3)) / (wave**2).sum()
        obeys = amplitude > 0.5
        z[obeys] = 0
        z[obeys, TARGET] = 1
        return z


def train_fn(poisoned):
    """The model is ``poisoned`` if it saw the trigger, and a perfect one otherwise."""
    seen = []

    @contextmanager
    def train(images, name):
        seen.append((name, images))
        yield poisoned(SOURCE) if name == "poisoned" else PerfectEmbedder(SOURCE)

    return train, seen


@pytest.fixture
def data():
    return SOURCE.dataset(400), SOURCE.dataset(80, seed=1)


def test_an_obedient_encoder_is_found_out(data):
    train, seen = train_fn(Obedient)
    result = Backdoor(TARGET, 0.05, TRIGGER).run(train, *data)
    clean = result.baselines["clean_model"]
    for head in ("knn", "linear"):
        assert result.metrics[f"{head}.accuracy"].value == 1
        assert result.metrics[f"{head}.success"].value == 1
        assert result.metrics[f"{head}.control"].value == clean[f"{head}.success"].value == 0
        assert result.metrics[f"{head}.success_gain"].value == 1
        assert result.metrics[f"{head}.accuracy_change"].value == 0
    assert result.metrics["knn.success"].n == 60
    assert [name for name, _ in seen] == ["clean", "poisoned"]


def test_what_is_trained_on_is_what_was_said(data):
    train, seen = train_fn(PerfectEmbedder)
    result = Backdoor(TARGET, 0.05, TRIGGER).run(train, *data)
    clean, poisoned = (images for _, images in seen)
    assert clean is data[0]
    rows = result.items["poisoned"]
    assert len(rows) == 20
    changed = np.flatnonzero((poisoned.images != clean.images).any(axis=(1, 2, 3)))
    np.testing.assert_array_equal(changed, rows)
    np.testing.assert_array_equal(poisoned.images[rows], TRIGGER(clean.images[rows]))
    assert set(clean.labels[rows].tolist()) == {TARGET}
    np.testing.assert_array_equal(poisoned.labels, clean.labels)


def test_an_encoder_that_learnt_nothing_from_it_gains_nothing(data):
    train, _ = train_fn(PerfectEmbedder)
    result = Backdoor(TARGET, 0.05, TRIGGER).run(train, *data)
    assert result.metrics["knn.success_gain"].value == 0
    assert result.metrics["knn.success"].value == 0


def test_impossible_shares_are_refused(data):
    labels = np.asarray(data[0].labels)
    for share in (0.001, 0.3):
        with pytest.raises(InvalidInput, match="1 to 100 images of class 2"):
            poison_rows(labels, 2, share, 0)


def test_encoded_files_are_refused():
    files = Dataset("files", (b"a", b"b"))
    with pytest.raises(InvalidInput, match="as one array"):
        poison(files, np.array([0]), TRIGGER)
