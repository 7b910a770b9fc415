"""Cross entropy against its definition, written with loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.cross_entropy import CrossEntropy


def entropy(features, weight, bias, labels, smoothing):
    total = 0.0
    classes = len(bias)
    for feature, label in zip(features, labels, strict=True):
        logits = [weight[c] @ feature + bias[c] for c in range(classes)]
        below = math.log(sum(math.exp(value) for value in logits))
        for c in range(classes):
            target = smoothing / classes + (1 - smoothing) * label[c]
            total -= target * (logits[c] - below)
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_definition(rng, smoothing):
    features, labels = rng.normal(size=(6, 4)), np.eye(3)[[0, 1, 2, 2, 1, 0]]
    # Two of the images are mixtures.
    labels[1:3] = [[0.2, 0.8, 0.0], [0.0, 0.5, 0.5]]
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    classifier = _linear(weight, bias)
    batch = _batch(features, labels, classifier)
    loss = CrossEntropy(label_smoothing=smoothing)(batch).total
    expected = entropy(features, weight, bias, labels, smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_an_undecided_classifier_is_at_chance(rng):
    classifier = _linear(np.zeros((5, 4)), np.zeros(5))
    labels = np.eye(5)[[0, 4, 2]]
    loss = CrossEntropy()(_batch(rng.normal(size=(3, 4)), labels, classifier)).total
    assert loss.item() == pytest.approx(math.log(5), rel=1e-6)


def test_the_classifier_is_on_features():
    objective = CrossEntropy()
    module = objective.build(Sizes(dim=7, feature_dim=4, classes=3))
    assert module is not None
    assert objective.classifier(module).weight.shape == (3, 4)
    with pytest.raises(InvalidInput, match="linear classifier"):
        objective.classifier(nn.Identity())


def test_without_labels_it_says_what_is_missing(rng):
    z = torch.zeros(1, 3, 4)
    with pytest.raises(InvalidInput, match="expected a batch with targets"):
        CrossEntropy()(Batch(z, z, module=nn.Linear(4, 2)))


def test_smoothing_must_leave_something_of_the_label():
    with pytest.raises(InvalidInput, match=r"label_smoothing in \[0, 1\)"):
        CrossEntropy(label_smoothing=1.0)


def _linear(weight, bias):
    module = nn.Linear(weight.shape[1], len(bias))
    with torch.no_grad():
        module.weight.copy_(torch.tensor(weight))
        module.bias.copy_(torch.tensor(bias))
    return module


def _batch(features, labels, classifier):
    z = torch.tensor(features, dtype=torch.float32)[None]
    targets = torch.tensor(labels, dtype=torch.float32)[None]
    return Batch(z, z, module=classifier, targets=targets)
