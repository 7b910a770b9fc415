"""The loss of section 3: labels of upright images, turns of all."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.self_supervised_auxiliary import SelfSupervisedAuxiliary


def log_softmax(x):
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


def test_labels_and_turns(rng):
    objective = SelfSupervisedAuxiliary(turns=0.3)
    features, labels = rng.normal(size=(4, 5, 6)), np.array([0, 2, 1, 1, 0])
    torch.manual_seed(0)
    module = objective.build(Sizes(dim=6, feature_dim=6, classes=3))
    weights = {k: v.double().numpy() for k, v in module.state_dict().items()}
    entropy = turns = 0.0
    for image, label in enumerate(labels):
        scores = weights["label.weight"] @ features[0, image] + weights["label.bias"]
        entropy -= log_softmax(scores)[label] / 5
        for turn in range(4):
            scores = weights["turn.weight"] @ features[turn, image] + weights["turn.bias"]
            turns -= log_softmax(scores)[turn] / 20
    x = torch.tensor(features, dtype=torch.float32)
    loss = objective(Batch(x, x, module=module, labels=torch.tensor(labels)))
    assert loss.parts["labels"].item() == pytest.approx(entropy, rel=1e-4)
    assert loss.parts["turns"].item() == pytest.approx(0.3 * turns, rel=1e-4)
    assert objective.classifier(module) is module.label


def test_views_are_the_turns_of_one_augmented_view():
    objective = SelfSupervisedAuxiliary()
    view = torch.arange(4.0).reshape(1, 1, 1, 2, 2) / 4
    turned = objective.transform(view, torch.Generator()).views
    assert turned.shape == (objective.views, 1, 1, 2, 2)
    assert (turned[2, 0, 0] * 4).tolist() == [[3, 2], [1, 0]]


def test_a_weight_below_zero_is_refused():
    with pytest.raises(InvalidInput, match="weight"):
        SelfSupervisedAuxiliary(turns=-0.5)
