"""TRADES against equation 5, with either divergence."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.trades import TRADES


def log_softmax(x):
    return x - np.log(np.exp(x).sum())


def expected(clean, changed, targets, weight, bias, between):
    natural = robust = 0.0
    for x, x_adv, share in zip(clean, changed, targets, strict=True):
        p, q = log_softmax(weight @ x + bias), log_softmax(weight @ x_adv + bias)
        natural -= share @ p / len(clean)
        if between == "predictions":
            robust += np.exp(p) @ (p - q) / len(clean)
        else:
            cosine = x @ x_adv / np.linalg.norm(x) / np.linalg.norm(x_adv)
            robust += (1 - cosine) / len(clean)
    return natural, robust


@pytest.mark.parametrize("between", ["features", "predictions"])
def test_equation_5(rng, between):
    objective = TRADES(beta=3.0, between=between)
    batch, arrays = _batch(objective, rng)
    natural, robust = expected(*arrays, between=between)
    parts = objective(batch).parts
    assert parts["natural"].item() == pytest.approx(natural, rel=1e-4)
    assert parts["robust"].item() == pytest.approx(3 * robust, rel=1e-4)


@pytest.mark.parametrize("between", ["features", "predictions"])
def test_the_adversary_raises_the_same_divergence(rng, between):
    objective = TRADES(between=between)
    batch, arrays = _batch(objective, rng)
    rows = torch.tensor([4, 1])
    harm = objective.harm(batch.adversarial[0, rows], batch.features, rows, batch.module)
    for value, row in zip(harm, rows, strict=True):
        one = [a[row : row + 1] for a in arrays[:3]]
        assert value.item() == pytest.approx(
            expected(*one, *arrays[3:], between=between)[1], rel=1e-4
        )


def test_the_gradient_passes_through_both_ends(rng):
    objective = TRADES(between="predictions")
    batch, _ = _batch(objective, rng)
    objective(batch).total.backward()
    assert batch.features.grad.abs().sum() > 0
    assert batch.adversarial.grad.abs().sum() > 0


def test_the_head_is_the_module():
    module = TRADES().build(Sizes(dim=2, feature_dim=2, classes=2))
    assert TRADES().classifier(module) is module
    with pytest.raises(InvalidInput, match="linear classifier"):
        TRADES().classifier(torch.nn.Identity())


@pytest.mark.parametrize("values", [{"beta": -1.0}, {"radius_255": 0.0}, {"steps": 0}])
def test_arguments_out_of_range_are_refused(values):
    with pytest.raises(InvalidInput, match="expected"):
        TRADES(**values)


def _batch(objective, rng):
    clean = rng.normal(size=(5, 4))
    changed = clean + rng.normal(size=(5, 4))
    targets = np.eye(3)[[0, 1, 2, 0, 1]]
    targets[0] = [0.25, 0.0, 0.75]
    torch.manual_seed(0)
    module = objective.build(Sizes(dim=4, feature_dim=4, classes=3))
    weight, bias = (p.detach().double().numpy() for p in module.parameters())
    x, x_adv, shares = (
        torch.tensor(a[None], dtype=torch.float32) for a in (clean, changed, targets)
    )
    x.requires_grad_()
    batch = Batch(x, x, module=module, targets=shares, adversarial=x_adv.requires_grad_())
    return batch, (clean, changed, targets, weight, bias)
