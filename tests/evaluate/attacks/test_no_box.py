"""No-box: losses against the paper's equations, groups by hand, and what it leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Problem, run_attack
from embedkit.evaluate.attacks.no_box import NoBox, groups_of
from embedkit.evaluate.measurement.victim.heads import CosineHead
from embedkit.evaluate.measurement.victim.reconstruction import (
    AutoEncoder,
    adversarial_loss,
    lesson_of,
    reconstruction_loss,
    train_on,
)
from embedkit.evaluate.threat import Threat
from embedkit.perturb.randomness import keys_of


def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def lesson(rng):
    """Six images of two classes, four decoders."""
    pixels = torch.tensor(rng.random((6, 2, 5, 4)), dtype=torch.float32)
    classes = torch.tensor([0, 1, 1, 0, 0, 1])
    return pixels, classes, lesson_of(pixels, classes, 4, generator())


def test_each_decoder_has_a_prototype_of_either_class(lesson):
    pixels, classes, made = lesson
    assert made.targets.shape == (2, 4, 2, 5, 4)
    for one in (0, 1):
        for prototype in made.targets[one]:
            same = [bool((prototype == image).all()) for image in pixels]
            assert classes[same.index(True)] == one


def test_the_training_loss_is_equation_2(lesson, rng):
    """Sum over decoders of (1 - y) |made - x0|^2 + y |made - x1|^2, here per value."""
    _, classes, made = lesson
    outputs = rng.random((6, 4, 2, 5, 4)).astype(np.float32)
    total = 0.0
    for i in range(6):
        y = int(classes[i])
        for k in range(4):
            for one, weight in ((0, 1 - y), (1, y)):
                prototype = made.targets[one, k].numpy()
                total += weight * float(((outputs[i, k] - prototype) ** 2).mean())
    found = reconstruction_loss(torch.tensor(outputs), made)
    assert float(found) == pytest.approx(total / 6, rel=1e-5)


@pytest.mark.parametrize("alone", [False, True])
def test_the_adversarial_loss_is_equation_3(lesson, rng, alone):
    """-log of exp(-lambda d_own) over the sum of exp(-lambda d) of all targets."""
    pixels, _, made = lesson
    decoders = 4
    if alone:
        made, decoders = lesson_of(pixels, torch.zeros(6, dtype=torch.int64), 1, generator()), 1
    rows = torch.tensor([4, 1])
    outputs = rng.random((2, decoders, 2, 5, 4)).astype(np.float32)
    expected = []
    for output, row in zip(outputs, rows.tolist(), strict=True):
        each = []
        for k in range(decoders):
            targets = made.targets[:, k].numpy()
            odds = np.exp([-7.0 * float(((output[k] - t) ** 2).mean()) for t in targets])
            each.append(-np.log(odds[int(made.own[row])] / odds.sum()))
        expected.append(np.mean(each))
    found = adversarial_loss(torch.tensor(outputs), made, rows, 7.0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("size", [(5, 4), (8, 8), (1, 1)])
def test_decoders_give_images_of_the_same_size_and_share_no_weight(size):
    model = AutoEncoder(2, 3, 4, generator())
    made = model(torch.rand(2, 2, *size))
    assert made.shape == (2, 3, 2, *size)
    made[:, 0].sum().backward()
    gradients = [[p.grad for p in one.parameters()] for one in model.decoders]
    assert any(bool(g.any()) for g in gradients[0])
    assert not any(bool(g.any()) for one in gradients[1:] for g in one)


@pytest.mark.parametrize("mechanism", ["prototypes", "rotation", "jigsaw"])
def test_training_lowers_the_loss(lesson, mechanism):
    pixels, classes, made = lesson
    if mechanism != "prototypes":
        made = lesson_of(pixels, torch.zeros_like(classes), 1, generator())
    model = AutoEncoder(2, made.targets.shape[1], 4, generator())
    before = float(reconstruction_loss(model(pixels), made).detach())
    train_on(model, pixels, made, mechanism, 60, generator())
    assert float(reconstruction_loss(model(pixels), made)) < before


def test_every_image_is_attacked_once_beside_another_class(rng):
    classes = rng.choice(5, 83, p=[0.5, 0.2, 0.2, 0.08, 0.02])
    parts = groups_of(classes, keys_of(tuple(map(str, range(83))), 0), 20)
    attacked = np.concatenate([part.rows[part.attacked] for part in parts])
    assert sorted(attacked) == list(range(83))
    for part in parts:
        first, second = part.rows[part.classes == 0], part.rows[part.classes == 1]
        assert len(part.rows) <= 20
        assert len(set(classes[first])) == len(set(classes[second])) == 1
        assert classes[first[0]] != classes[second[0]]


def test_one_class_is_cut_into_groups_alone():
    keys = keys_of(tuple(map(str, range(45))), 0)
    parts = groups_of(np.full(45, 3), keys, 20)
    assert [len(part.rows) for part in parts] == [20, 20, 5]
    assert all(part.attacked.all() and not part.classes.any() for part in parts)


def test_it_has_neither_oracle_nor_twin_and_needs_no_classes(toy):
    threat = Threat("linf", 60)
    few = replace(toy, images=toy.images[:12], ids=toy.ids[:12])
    head = CosineHead(toy.victim.embed(few.images), threshold=0.995)
    problem = Problem(few.images, keys_of(few.ids, 0), threat, head, None, None)
    method = NoBox(training=10, steps=5)
    found = method.run(problem)
    assert found.gradient_norms is None
    outcome = run_attack(method, replace(few, head=head, surrogate=None), threat)
    assert np.array_equal(outcome.candidates, threat.project(found.candidates, few.images))
    assert outcome.queries.sum() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": 1}, "expected group"),
        ({"training": 0}, "training"),
        ({"mechanism": "magic"}, "expected the mechanism 'prototypes'"),
        ({"sharpness": 0.0}, "expected sharpness > 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InvalidInput, match=message):
        NoBox(**settings)
