"""VAT against equations 5 to 8; its power iteration is tested with the adversary."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.vat import VAT


def log_softmax(x):
    return x - np.log(np.exp(x).sum())


def smoothness(x, x_adv, weight, bias):
    p, q = log_softmax(weight @ x + bias), log_softmax(weight @ x_adv + bias)
    return np.exp(p) @ (p - q)


def test_equations_5_to_8(rng):
    objective = VAT(weight=0.5)
    batch, clean, changed, weight, bias = _batch(objective, rng)
    pairs = list(zip(clean, changed, strict=True))
    entropy = -np.mean([log_softmax(weight @ clean[i] + bias)[i % 3] for i in range(6)])
    parts = objective(batch).parts
    lds = np.mean([smoothness(*pair, weight=weight, bias=bias) for pair in pairs])
    assert parts["entropy"].item() == pytest.approx(entropy, rel=1e-4)
    assert parts["smoothness"].item() == pytest.approx(0.5 * lds, rel=1e-4)
    rows = torch.tensor([5, 0, 2])
    harm = objective.harm(batch.adversarial[0, rows], batch.features, rows, batch.module)
    expected = [smoothness(*pairs[row], weight=weight, bias=bias) for row in rows]
    np.testing.assert_allclose(harm.detach().numpy(), expected, rtol=1e-4)


def test_the_prediction_at_the_image_is_a_target(rng):
    """With hat(theta) in equation 5, the smoothness gives the clean features no gradient."""
    batch, *_ = _batch(VAT(weight=1.0), rng)
    VAT(weight=1.0)(batch).total.backward()
    both = batch.features.grad.clone()
    plain = Batch(**(vars(batch) | {"features": batch.features.detach().requires_grad_()}))
    VAT(weight=0.0)(plain).total.backward()
    torch.testing.assert_close(both, plain.features.grad)
    assert batch.adversarial.grad.abs().sum() > 0


def test_it_searches_by_power_iteration():
    adversary = VAT(radius_255=100.0, steps=2).adversary
    assert (adversary.search, adversary.norm, adversary.steps) == ("power", "l2", 2)
    assert adversary.radius_255 == 100.0


def test_the_head_is_the_module():
    module = VAT().build(Sizes(dim=2, feature_dim=2, classes=2))
    assert VAT().classifier(module) is module
    with pytest.raises(InvalidInput, match="linear classifier"):
        VAT().classifier(torch.nn.Identity())


@pytest.mark.parametrize("values", [{"weight": -1.0}, {"radius_255": 0.0}, {"steps": 0}])
def test_arguments_out_of_range_are_refused(values):
    with pytest.raises(InvalidInput, match="expected"):
        VAT(**values)


def _batch(objective, rng):
    clean = rng.normal(size=(6, 4))
    changed = clean + rng.normal(size=(6, 4))
    torch.manual_seed(0)
    module = objective.build(Sizes(dim=4, feature_dim=4, classes=3))
    weight, bias = (p.detach().double().numpy() for p in module.parameters())
    x, x_adv = (torch.tensor(a[None], dtype=torch.float32) for a in (clean, changed))
    x.requires_grad_()
    targets = torch.eye(3)[torch.arange(6) % 3][None]
    batch = Batch(x, x, module=module, targets=targets, adversarial=x_adv.requires_grad_())
    return batch, clean, changed, weight, bias
