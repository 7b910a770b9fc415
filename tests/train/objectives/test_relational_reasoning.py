"""Relational reasoning against equations 2 and 3 of the paper."""

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.relational_reasoning import RelationalReasoning, _others


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("focus", [0.0, 2.0])
def test_pairs_of_one_image_and_of_two(rng, focus):
    objective = RelationalReasoning(views=3, focus=focus)
    features, indices = rng.normal(size=(3, 5, 4)), torch.tensor([8, 1, 30, 4, 17])
    # Batch norm is left out of the reference; the relation is a single layer here.
    module = objective.build(Sizes(dim=4, feature_dim=4))
    module.layers = nn.Linear(8, 1)
    weight, bias = (p.detach().double().numpy() for p in module.layers.parameters())
    other = _others(indices).numpy()
    same, different, pairs = 0.0, 0.0, 0
    for i in range(3):
        for j in range(i + 1, 3):
            for image in range(5):
                pairs += 1
                for target, second in ((1, features[j, image]), (0, features[j, other[image]])):
                    joined = np.concatenate([features[i, image], second])
                    p = sigmoid((weight @ joined + bias)[0])
                    entropy = -np.log(p) if target else -np.log(1 - p)
                    value = abs(target - p) ** focus * entropy
                    same, different = same + target * value, different + (1 - target) * value
    x = torch.tensor(features, dtype=torch.float32)
    parts = objective(Batch(x, x, module=module, indices=indices)).parts
    assert parts["same"].item() == pytest.approx(same / pairs / 2, rel=1e-4)
    assert parts["different"].item() == pytest.approx(different / pairs / 2, rel=1e-4)


@pytest.mark.parametrize("images", [2, 3, 64])
def test_every_image_is_paired_with_another_one_once(images):
    other = _others(torch.arange(images) * 5 + 2)
    assert sorted(other.tolist()) == list(range(images))
    assert (other != torch.arange(images)).all()


def test_neighbours_in_the_data_are_not_paired_more_often_than_others():
    # Classes of 100 images that lie side by side, as in a folder per class: with 10 classes a
    # pair drawn at random is of one class in a tenth of all cases.
    indices = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:500]
    same = (indices // 100 == indices[_others(indices)] // 100).float().mean()
    assert same < 0.2


@pytest.mark.parametrize("arguments", [{"views": 1}, {"hidden": 0}, {"focus": -1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="at least"):
        RelationalReasoning(**arguments)
