"""SimSiam against algorithm 1 of the paper."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.simsiam import SimSiam


def normalised(x):
    """Batch norm without scale and offset, over the images of one view."""
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)


def negative_cosine(p, z):
    """Equation 1, averaged over images."""
    total = 0.0
    for a, b in zip(p, z, strict=True):
        total -= a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return total / len(p)


def test_algorithm_1(rng):
    z = rng.normal(size=(2, 5, 4))
    module = SimSiam(hidden=3).build(Sizes(dim=4, feature_dim=9))
    weights = {k: v.double().numpy() for k, v in module.predictor.state_dict().items()}

    def predict(x):
        hidden = normalised(x @ weights["0.weight"].T) * weights["1.weight"] + weights["1.bias"]
        return np.maximum(hidden, 0) @ weights["3.weight"].T + weights["3.bias"]

    targets = [normalised(view) for view in z]
    predicted = [predict(view) for view in targets]
    expected = (
        negative_cosine(predicted[0], targets[1]) + negative_cosine(predicted[1], targets[0])
    ) / 2
    loss = SimSiam()(_batch(z, module))
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)


def test_targets_pass_no_gradient(rng):
    module = SimSiam(hidden=3).build(Sizes(dim=4, feature_dim=9))
    module.predictor = torch.nn.Identity()
    z = torch.tensor(rng.normal(size=(2, 6, 4)), dtype=torch.float32, requires_grad=True)
    SimSiam()(Batch(z, z, module=module)).total.backward()
    alone = z.detach().clone().requires_grad_()
    first, second = (module.norm(view) for view in alone)
    cosine = torch.nn.functional.cosine_similarity
    loss = -(cosine(first, second.detach()) + cosine(second, first.detach())).mean() / 2
    loss.backward()
    torch.testing.assert_close(z.grad, alone.grad)


def test_the_predictor_is_a_bottleneck():
    module = SimSiam().build(Sizes(dim=64, feature_dim=9))
    assert module.predictor[0].out_features == 16


def test_arguments_out_of_range_are_refused():
    with pytest.raises(InvalidInput, match="hidden width"):
        SimSiam(hidden=-1)


def _batch(z, module):
    z = torch.tensor(z, dtype=torch.float32)
    return Batch(z, z, module=module)
