"""Membership inference with encoders whose memory is known."""

import zlib
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from embedkit.data.source import load_dataset
from embedkit.errors import InvalidInput
from embedkit.evaluate.measurement.pixels.views import augmented
from embedkit.evaluate.studies.membership import Membership, likelihood_ratio, view_similarity
from embedkit.testing import ConstantEmbedder, SyntheticImages

SOURCE = SyntheticImages(classes=4)
TRAIN = SOURCE.dataset(1000)


def train_fn(models):
    @contextmanager
    def train(images, name):
        models[name] = images
        yield Remembering(SOURCE.spec, images)

    return train


class Remembering(ConstantEmbedder):
    """Embeds views of what it has seen alike, and those of other images at random.

    It knows a view's image by the order in which the study sends them: that of the canaries.
    """

    def __init__(self, spec, images):
        super().__init__(spec)
        self.ids = set(images.ids)
        self.rng = np.random.default_rng(len(self.ids))
        self.canaries = []

    def embed(self, images):
        noise = np.where(self.knows(), 0.3, 0.5)[:, None]
        z = 1 + noise * self.rng.standard_normal((len(images), self.dim))
        return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)

    def knows(self):
        return np.array([name in self.ids for name in CANARIES])


CANARIES: list[str] = []


@pytest.fixture
def run():
    def run(study):
        order = np.random.default_rng(0).permutation(len(TRAIN))[: study.canaries]
        CANARIES[:] = [TRAIN.ids[row] for row in np.sort(order)]
        models = {}
        return study.run(train_fn(models), TRAIN), models

    return run


def test_a_memory_is_found_and_is_not_found_in_another_encoder(run):
    result, models = run(Membership(canaries=600, models=4, views=4))
    for attack in ("similarity", "likelihood"):
        metric = result.metrics[f"{attack}.auroc"]
        assert metric.ci[0] > 0.7
        other = result.baselines["other_model"][f"{attack}.auroc"]
        assert other.ci[0] < 0.5 < other.ci[1]
    assert set(models) == {f"model{m}" for m in range(4)}
    for m, images in enumerate(models.values()):
        trained = np.isin(result.items["canaries"].astype(str), images.ids)
        np.testing.assert_array_equal(trained, result.items["members"][m])
        assert len(images) == 1000 - 300


def test_rates_at_low_false_alarms(run):
    result, _ = run(Membership(canaries=600, models=4, views=4))
    truth, scores = result.items["members"][0], result.items["similarity"][0]
    allowed = np.sort(scores[~truth])[::-1][3]
    tpr = result.metrics["similarity.tpr_at_fpr_1e-2"]
    assert tpr.value == np.mean(scores[truth] > allowed)
    assert result.metrics["similarity.fpr_at_fpr_1e-2"].value == 3 / 300
    # 0.1 % of 300 held-out canaries is less than one: no rate is better than a made-up one.
    assert "similarity.tpr_at_fpr_1e-3" not in result.metrics
    assert "at least 1000 held-out canaries, got 300" in result.warnings[1]


def test_similarity_is_the_mean_cosine_over_pairs(rng):
    views = rng.standard_normal((4, 5, 3))
    views /= np.linalg.norm(views, axis=2, keepdims=True)
    pairs = [views[a] @ views[b].T for a in range(4) for b in range(4) if a < b]
    expected = np.mean([np.diag(pair) for pair in pairs], axis=0)
    np.testing.assert_allclose(view_similarity(views), expected)


def test_likelihood_ratio_is_that_of_two_normals():
    others = np.array([[1.0, 2.0], [3.0, 2.5], [0.0, 0.5], [-1.0, 4.0]])
    members = np.array([[True, False], [True, True], [False, True], [False, False]])
    # Means per canary and one variance: 8 numbers less 4 means.
    inside, outside = np.array([2.0, 1.5]), np.array([-0.5, 3.0])
    residuals = others - np.where(members, inside, outside)
    sd = np.sqrt((residuals**2).sum() / 4)
    target = np.array([0.7, 1.1])
    expected = norm.logpdf(target, inside, sd) - norm.logpdf(target, outside, sd)
    np.testing.assert_allclose(likelihood_ratio(target, others, members), expected)


def test_a_canary_that_no_other_encoder_left_out_takes_the_mean_gap():
    others = np.array([[1.0, 5.0], [3.0, 7.0], [0.0, 6.0]])
    members = np.array([[True, True], [True, True], [False, True]])
    # Gap of the first canary: 2 - 0; the second would have had 6 - 2 outside.
    residuals = np.array([-1, 1, 0, -1, 1, 0])
    sd = np.sqrt((residuals**2).sum() / (6 - 3))
    expected = norm.logpdf(5.5, 6, sd) - norm.logpdf(5.5, 4, sd)
    assert likelihood_ratio(np.array([0.0, 5.5]), others, members)[1] == pytest.approx(expected)


def test_too_few_images_models_or_views_are_refused():
    with pytest.raises(InvalidInput, match="more training images than 2000 canaries, got 1000"):
        Membership().run(train_fn({}), TRAIN)
    with pytest.raises(InvalidInput, match="at least 4 canaries"):
        Membership(models=3)


@contextmanager
def overfit(images, name):
    """A network that learns a few views of each image by heart, on the sphere.

    Each image is a class of its own, by cosine over a temperature of 0.3 (Wu et al. 2018).
    """
    torch.manual_seed(zlib.crc32(name.encode()))
    views = [augmented(images.images, ids=images.ids, seed=100 + view) for view in range(16)]
    pixels = torch.from_numpy(np.concatenate(views)).flatten(1).float() / 255
    own = torch.arange(len(images)).repeat(len(views))
    hidden = (nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    body = nn.Sequential(*hidden, nn.Linear(256, Network.dim))
    centres = nn.Parameter(torch.randn(len(images), Network.dim))
    optimiser = torch.optim.Adam([*body.parameters(), centres], lr=0.005)
    for _ in range(90):
        optimiser.zero_grad()
        cosines = normalize(body(pixels), dim=1) @ normalize(centres, dim=1).T
        cross_entropy(cosines / 0.3, own).backward()
        optimiser.step()
    yield Network(body)


@dataclass
class Network:
    """Unit vectors of a network that takes flat images."""

    body: nn.Module
    dim: int = 64
    digest: str = "network"

    def embed(self, images):
        with torch.no_grad():
            z = self.body(torch.from_numpy(images).flatten(1).float() / 255)
        return normalize(z, dim=1).numpy()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_an_encoder_that_learnt_its_images_by_heart_gives_them_away():
    """The positive control: nothing is planted, four networks are trained on digits."""
    digits = load_dataset("digits").subset(np.arange(204))
    result = Membership(canaries=200, models=4, views=8).run(overfit, digits)
    for attack in ("similarity", "likelihood"):
        assert result.metrics[f"{attack}.auroc"].ci[0] > 0.6
        # At one false alarm in a hundred, by the lower end of its own interval.
        assert result.metrics[f"{attack}.tpr_at_fpr_1e-2"].ci[0] > 0.05
        other = result.baselines["other_model"][f"{attack}.auroc"]
        assert other.ci[0] < 0.5 < other.ci[1]
