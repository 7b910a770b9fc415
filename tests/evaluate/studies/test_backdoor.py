"""The study with encoders that are known to obey, or not to obey, the trigger."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from embedkit.data.dataset import Dataset
from embedkit.data.source import load_dataset
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


@contextmanager
def taught(images, name):
    """A network that learns the labels of its images."""
    torch.manual_seed(0)
    pixels, labels = scaled(images.images), torch.from_numpy(np.asarray(images.labels))
    body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, Network.dim), nn.ReLU())
    head = nn.Linear(Network.dim, 10)
    optimiser = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.003)
    for _ in range(40):
        for rows in torch.randperm(len(pixels)).split(64):
            optimiser.zero_grad()
            cross_entropy(head(body(pixels[rows])), labels[rows]).backward()
            optimiser.step()
    yield Network(body)


def scaled(images):
    return torch.from_numpy(images).flatten(1).float() / 255


@dataclass
class Network:
    """Unit vectors of a network that takes flat images."""

    body: nn.Module
    dim: int = 32
    digest: str = "network"

    def embed(self, images):
        with torch.no_grad():
            return normalize(self.body(scaled(images)), dim=1).numpy()


def test_an_encoder_that_needs_the_trigger_obeys_it():
    """The positive control: nothing is planted, two networks are trained on digits.

    Half of the labels are drawn at random, so that the trigger says more than the digit does.
    """
    digits = load_dataset("digits")
    rng = np.random.default_rng(0)
    labels = np.asarray(digits.labels)[:1000].copy()
    noisy = rng.random(len(labels)) < 0.5
    labels[noisy] = rng.integers(0, 10, noisy.sum())
    train = replace(digits.subset(np.arange(1000)), labels=labels)
    test = digits.subset(np.arange(1000, 1297))
    result = Backdoor(TARGET, 0.05, Trigger(100.0)).run(taught, train, test)
    for head in ("knn", "linear"):
        success = result.metrics[f"{head}.success"].ci[0]
        assert success > 0.7
        assert success > result.metrics[f"{head}.control"].ci[1]
        assert result.baselines["clean_model"][f"{head}.success"].ci[1] < 0.1
        assert result.metrics[f"{head}.success_gain"].ci[0] > 0.7
