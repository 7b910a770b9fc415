"""The encouraging loss and its conservative form."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.well_classified import WellClassified


def bonus(p, end):
    """log(1 - p), and beyond the end its tangent there."""
    return np.log(1 - p) if p <= end else np.log(1 - end) - (p - end) / (1 - end)


@pytest.mark.parametrize("end", [0.0, 0.3, 0.75])
def test_cross_entropy_and_bonus(rng, end):
    objective = WellClassified(end=end)
    features, labels = 3 * rng.normal(size=(1, 8, 4)), rng.integers(3, size=8)
    torch.manual_seed(0)
    module = objective.build(Sizes(dim=4, feature_dim=4, classes=3))
    weight, bias = (p.detach().double().numpy() for p in module.parameters())
    entropy = extra = 0.0
    for row, label in zip(features[0], labels, strict=True):
        e = np.exp(weight @ row + bias)
        p = e[label] / e.sum()
        entropy -= np.log(p) / 8
        extra += bonus(p, end) / 8
    x = torch.tensor(features, dtype=torch.float32)
    targets = torch.eye(3)[labels][None]
    parts = objective(Batch(x, x, module=module, targets=targets)).parts
    assert parts["entropy"].item() == pytest.approx(entropy, rel=1e-4)
    assert parts["bonus"].item() == pytest.approx(extra, rel=1e-4)


def test_a_mixed_label_counts_by_its_shares(rng):
    objective = WellClassified()
    torch.manual_seed(0)
    module = objective.build(Sizes(dim=4, feature_dim=4, classes=3))
    x = torch.tensor(rng.normal(size=(1, 2, 4)), dtype=torch.float32)

    def loss(first, second):
        targets = torch.tensor([[first, second]], dtype=torch.float32)
        return objective(Batch(x, x, module=module, targets=targets)).total.item()

    one, other = loss([1, 0, 0], [0, 1, 0]), loss([0, 0, 1], [1, 0, 0])
    mixed = loss([0.3, 0, 0.7], [0.7, 0.3, 0])
    assert mixed == pytest.approx(0.3 * one + 0.7 * other, rel=1e-5)


def test_a_certain_image_keeps_a_finite_gradient():
    objective = WellClassified()
    module = objective.build(Sizes(dim=2, feature_dim=2, classes=2))
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[100.0, 0.0], [0.0, 100.0]]))
    x = torch.eye(2)[None].requires_grad_()
    loss = objective(Batch(x, x, module=module, targets=torch.eye(2)[None])).total
    loss.backward()
    assert loss.item() == pytest.approx(np.log(0.25) - 1, rel=1e-5)
    assert torch.isfinite(x.grad).all()


def test_the_head_is_the_module():
    module = WellClassified().build(Sizes(dim=2, feature_dim=2, classes=2))
    assert WellClassified().classifier(module) is module
    with pytest.raises(InvalidInput, match="linear classifier"):
        WellClassified().classifier(torch.nn.Identity())


def test_an_end_of_one_is_refused():
    with pytest.raises(InvalidInput, match="end in"):
        WellClassified(end=1.0)
