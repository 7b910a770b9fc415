"""PGD against exact optima of small embeddings, and against random noise."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Target, run_attack
from embedkit.evaluate.attacks.pgd import PGD
from embedkit.evaluate.measurement.victim.heads import CosineHead
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.threat import Threat


class LinearEncoder(torch.nn.Module):
    """Features that are a matrix times the pixels; stands in for an Encoder."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", torch.tensor(matrix, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(1))

    def to_unit(self, images):
        return images.permute(0, 3, 1, 2).float() / 255


class LinearTwin:
    """The embedding of a linear encoder, for numpy and for gradients."""

    digest = "sha256:linear"

    def __init__(self, matrix):
        self.encoder = LinearEncoder(matrix)
        self.dim = len(matrix)

    def embed_pixels(self, pixels):
        return torch.nn.functional.normalize(pixels.flatten(1) @ self.encoder.matrix.T, dim=1)

    def embed(self, images):
        return self.embed_pixels(self.encoder.to_unit(torch.tensor(images))).numpy()


def linear_target(matrix, image, copies):
    # Any: what the attack uses of a TorchEmbedder is all that this one has.
    twin: Any = LinearTwin(matrix)
    images = np.tile(np.array(image, np.uint8).reshape(1, 1, -1, 1), (copies, 1, 1, 1))
    head = CosineHead(twin.embed(images), threshold=-1.0)
    return Target(twin, head, images, tuple(map(str, range(copies))), twin)


def cosines(outcome, target):
    return (outcome.embeddings * target.head.anchors).sum(axis=1)


@pytest.mark.parametrize("radius", [4, 16, 40])
def test_cosine_reaches_the_optimum_found_by_enumeration(radius):
    """Three pixels, two dimensions: every 8-bit image in the ball is tried."""
    matrix = np.random.default_rng(1).standard_normal((2, 3))
    target = linear_target(matrix, [90, 140, 60], copies=8)
    levels = range(-radius, radius + 1, 4)
    grid = np.array(list(itertools.product(levels, repeat=3))) + np.array([90, 140, 60])
    every = target.victim.embed(grid.astype(np.uint8).reshape(-1, 1, 3, 1))
    optimum = 1 - (every @ target.head.anchors[0]).min()
    found = 1 - cosines(run_attack(PGD(steps=60), target, Threat("linf", radius)), target)
    assert 0.99 * optimum <= found.max() <= optimum + 1e-5


def test_l2_reaches_the_optimum_found_by_sampling():
    matrix = np.random.default_rng(1).standard_normal((2, 3))
    target = linear_target(matrix, [90, 140, 60], copies=4)
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((20_000, 3))
    sphere = [90, 140, 60] + 30 * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    pixels = torch.tensor(sphere / 255, dtype=torch.float32)[:, None, None]
    every = target.victim.embed_pixels(pixels).numpy()
    optimum = 1 - (every @ target.head.anchors[0]).min()
    found = 1 - cosines(run_attack(PGD(steps=60), target, Threat("l2", 30)), target)
    # Rounding to 8 bits inside the ball costs a little.
    assert found.max() >= 0.95 * optimum


def test_fgsm_is_one_step(toy):
    outcome = run_attack(PGD(steps=1, relative_step=2.0), toy, Threat("linf", 16))
    moved = np.abs(outcome.adversarial.astype(int) - toy.images)
    # One step of twice the radius from anywhere in the ball ends on its edge or on 0 or 255.
    at_the_end = (moved == 16) | (outcome.adversarial == 0) | (outcome.adversarial == 255)
    assert at_the_end.mean() > 0.95


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["cosine", "decision"])
def test_more_is_found_than_by_random_noise(toy, norm, loss):
    radius = 32 if norm == "linf" else 150
    threat = Threat(norm, radius)
    rng = np.random.default_rng(0)
    signs = rng.choice([-255.0, 255.0], toy.images.shape)
    noisy = threat.quantise((toy.images + signs).astype(np.float32), toy.images)
    fooled_by_noise = toy.head.margins(toy.victim.embed(noisy), np.arange(40)) <= 0
    outcome = run_attack(PGD(steps=20, loss=loss), toy, threat)
    clean = toy.victim.embed(toy.images)
    shift = 1 - (outcome.embeddings * clean).sum(axis=1)
    noise_shift = 1 - (toy.victim.embed(noisy) * clean).sum(axis=1)
    assert outcome.success.mean() > fooled_by_noise.mean() + 0.1
    if loss == "cosine":
        assert np.median(shift) > 2 * np.median(noise_shift)


def test_the_decision_loss_fools_more_votes_than_the_cosine(toy):
    threat = Threat("linf", 24)
    by_class = run_attack(PGD(20, loss="decision"), toy, threat).success.mean()
    by_cosine = run_attack(PGD(20, loss="cosine"), toy, threat).success.mean()
    assert by_class >= by_cosine + 0.1


def test_success_grows_with_the_radius(toy):
    rates = [
        run_attack(PGD(20, loss="decision"), toy, Threat("linf", r)).success.mean()
        for r in (2, 16, 64)
    ]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] == 1


def test_restarts_never_make_it_worse(toy):
    clean = toy.victim.embed(toy.images)

    def shift(restarts):
        found = run_attack(PGD(5, restarts=restarts), toy, Threat("linf", 16))
        pixels = torch.tensor(found.candidates).permute(0, 3, 1, 2) / 255
        return 1 - (toy.surrogate.embed_pixels(pixels).numpy() * clean).sum(axis=1)

    once, thrice = shift(1), shift(3)
    assert (thrice >= once - 1e-6).all()
    assert (thrice > once + 1e-4).any()


def test_results_depend_neither_on_the_batch_nor_on_the_order(toy):
    method = PGD(4, loss="decision")
    whole = run_attack(method, toy, Threat("linf", 8))
    order = np.random.default_rng(0).permutation(40)[:15]
    head = KnnHead(toy.head.bank, toy.head.bank_labels, toy.head.labels[order])
    ids = tuple(toy.ids[i] for i in order)
    part = Target(toy.victim, head, toy.images[order], ids, toy.surrogate)
    other = run_attack(PGD(4, loss="decision", batch=4), part, Threat("linf", 8))
    difference = np.abs(other.candidates - whole.candidates[order])
    # Signs of gradients near zero may differ in the last bit with the size of the batch.
    assert (difference > 0.01).mean() < 0.01


def test_the_seed_matters_and_repeats(toy):
    runs = [run_attack(PGD(2), toy, Threat("linf", 8), seed=s).candidates for s in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_no_queries_are_spent(toy):
    outcome = run_attack(PGD(2), toy, Threat("linf", 8))
    assert outcome.usage.images == outcome.queries.sum() == 0
    assert outcome.gradient_norms is not None
    assert outcome.gradient_norms.min() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 40, "relative_step": 0.033}, r"expected steps \* relative_step >= 2"),
        ({"steps": 0}, "expected steps, restarts and batch >= 1"),
        ({"loss": "margin"}, "expected the loss decision or cosine .* got 'margin'"),
        ({"rule": "adam"}, "expected the rule 'steepest' or 'momentum', got 'adam'"),
    ],
)
def test_weak_or_wrong_settings_are_refused(settings, message):
    with pytest.raises(InvalidInput, match=message):
        PGD(**settings)


def test_losses_of_class_scores_need_classes(toy):
    anchors = CosineHead(toy.victim.embed(toy.images))
    target = Target(toy.victim, anchors, toy.images, toy.ids, toy.surrogate)
    with pytest.raises(InvalidInput, match=r"expected a head with classes .* got CosineHead"):
        run_attack(PGD(2, loss="cross_entropy"), target, Threat("linf", 8))
