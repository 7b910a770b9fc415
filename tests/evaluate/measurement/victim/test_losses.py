"""Losses of white-box attacks against the equations of the papers, one image at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedkit.bundle import Head
from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Problem
from embedkit.evaluate.measurement.victim.heads import CosineHead, LinearHead
from embedkit.evaluate.measurement.victim.logits import (
    class_logits,
    cross_entropy,
    dlr,
    targeted_dlr,
)
from embedkit.evaluate.measurement.victim.losses import judge_of
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.threat import Threat
from embedkit.perturb.randomness import keys_of

CLASSES, DIM = 5, 7


@pytest.fixture
def logits(rng):
    return 3 * rng.normal(size=(20, CLASSES))


@pytest.fixture
def labels(rng):
    return rng.integers(0, CLASSES, 20)


def test_the_difference_of_logits_ratio_is_equation_6(logits, labels):
    found = dlr(torch.tensor(logits), torch.tensor(labels))
    for row, z, y in zip(found, logits, labels, strict=True):
        pi = np.sort(z)[::-1]
        wanted = -(z[y] - max(z[j] for j in range(CLASSES) if j != y)) / (pi[0] - pi[2])
        assert float(row) == pytest.approx(wanted)


def test_its_targeted_form_is_equation_7(logits, labels):
    targets = (labels + 1) % CLASSES
    found = targeted_dlr(torch.tensor(logits), torch.tensor(labels), torch.tensor(targets))
    for row, z, y, t in zip(found, logits, labels, targets, strict=True):
        pi = np.sort(z)[::-1]
        wanted = -(z[y] - z[t]) / (pi[0] - (pi[2] + pi[3]) / 2)
        assert float(row) == pytest.approx(wanted)


def test_ratios_do_not_depend_on_the_scale_of_the_logits(logits, labels):
    one, ten = (dlr(torch.tensor(c * logits), torch.tensor(labels)) for c in (1, 1000))
    torch.testing.assert_close(one, ten)


def test_the_cross_entropy_is_the_usual_one(logits, labels):
    found = cross_entropy(torch.tensor(logits), torch.tensor(labels))
    wanted = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(20), labels]
    np.testing.assert_allclose(found.numpy(), wanted)


def test_the_cross_entropy_keeps_its_gradient_where_the_usual_form_loses_it():
    z = torch.tensor([[40.0, 1.0, 0.0]], requires_grad=True)
    label = torch.tensor([0])
    (ours,) = torch.autograd.grad(cross_entropy(z, label).sum(), z)
    (usual,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z, label), z)
    assert float(usual[0, 0]) == 0
    assert float(ours[0, 0]) == pytest.approx(-(np.exp(-39) + np.exp(-40)), rel=1e-4)


@pytest.fixture
def knn(rng):
    bank = rng.normal(size=(60, DIM)).astype(np.float32)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    labels = rng.integers(0, CLASSES, 60)
    return KnnHead(bank, labels, rng.integers(0, CLASSES, 30), k=9)


def test_the_exact_votes_decide_as_the_head(knn, rng):
    z = rng.normal(size=(30, DIM)).astype(np.float32)
    smooth, exact = class_logits(knn, torch.device("cpu"))(torch.tensor(z))
    assert np.array_equal(exact.argmax(dim=1).numpy(), knn.decide(z))
    # From half of k neighbours for each class, worked out one class at a time.
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    for c in range(CLASSES):
        cosines = np.sort(unit @ knn.bank[knn.bank_labels == c].T, axis=1)[:, ::-1][:, :5]
        wanted = np.log(np.exp(cosines / 0.07).sum(axis=1))
        np.testing.assert_allclose(smooth[:, c].numpy(), wanted, rtol=1e-4)


def test_a_class_without_images_has_no_vote_and_no_gradient(knn):
    empty = replace(knn, bank_labels=np.where(knn.bank_labels == 2, 1, knn.bank_labels))
    z = torch.randn(3, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    smooth, exact = class_logits(empty, torch.device("cpu"))(z)
    assert smooth[:, 2].isneginf().all()
    assert exact[:, 2].isneginf().all()
    (gradient,) = torch.autograd.grad(smooth.logsumexp(dim=1).sum(), z)
    assert gradient.isfinite().all()


def problem(toy, head):
    keys = keys_of(toy.ids, 0)
    return Problem(toy.images, keys, Threat("linf", 8), head, None, toy.surrogate)


@pytest.mark.parametrize("loss", ["decision", "cosine", "cross_entropy", "dlr"])
def test_margins_beside_every_loss_are_the_heads_own_decisions(toy, loss):
    rows = np.arange(10, 30)
    noise = np.random.default_rng(0).integers(-60, 60, toy.images[rows].shape)
    images = np.clip(toy.images[rows] + noise, 0, 255).astype(np.uint8)
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    margins = judge_of(problem(toy, toy.head), rows, loss)(pixels).margins.numpy()
    truth = toy.head.margins(toy.victim.embed(images), rows)
    assert np.array_equal(margins <= 0, truth <= 0)
    assert 0 < (margins <= 0).sum() < 20


def test_losses_of_classes_are_refused_without_classes(toy):
    head = CosineHead(toy.victim.embed(toy.images))
    with pytest.raises(InvalidInput, match=r"expected a head with classes .* take the loss"):
        judge_of(problem(toy, head), np.arange(3), "dlr")


def test_linear_scores_are_the_heads_logits(rng):
    weight = rng.normal(size=(CLASSES, DIM)).astype(np.float32)
    linear = Head(weight, rng.normal(size=CLASSES).astype(np.float32), tuple("abcde"))
    head = LinearHead(linear, np.zeros(4, int))
    z = rng.normal(size=(4, DIM)).astype(np.float32)
    found, _ = class_logits(head, torch.device("cpu"))(torch.tensor(z))
    np.testing.assert_allclose(found.numpy(), linear.logits(z), rtol=1e-5)
