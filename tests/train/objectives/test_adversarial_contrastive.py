"""RoCL against equations 2, 4 and 6, with loops."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.adversarial_contrastive import AdversarialContrastive


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def contrast(anchor, positives, views, image, temperature):
    """Equation 2; the negatives are both views of every other image."""
    near = sum(np.exp(cosine(anchor, p) / temperature) for p in positives)
    far = sum(
        np.exp(cosine(anchor, view[other]) / temperature)
        for view in views
        for other in range(views.shape[1])
        if other != image
    )
    return -np.log(near / (near + far))


def test_the_loss_of_the_paper(rng):
    objective = AdversarialContrastive(temperature=0.4, weight=0.3)
    views, changed = rng.normal(size=(2, 5, 4)), rng.normal(size=(5, 4))
    natural = robust = 0.0
    for i in range(5):
        natural += contrast(views[0, i], [views[1, i], changed[i]], views, i, 0.4) / 5
        robust += contrast(changed[i], [views[1, i]], views, i, 0.4) / 5
    parts = objective(_batch(views, changed)).parts
    assert parts["natural"].item() == pytest.approx(natural, rel=1e-4)
    assert parts["robust"].item() == pytest.approx(0.3 * robust, rel=1e-4)


def test_the_adversary_raises_the_loss_of_the_changed_view(rng):
    objective = AdversarialContrastive(temperature=0.4)
    views, changed = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 4))
    rows = torch.tensor([3, 0])
    harm = objective.harm(
        torch.tensor(changed, dtype=torch.float32),
        torch.tensor(views, dtype=torch.float32),
        rows,
        None,
    )
    for value, row, anchor in zip(harm, rows.tolist(), changed, strict=True):
        expected = contrast(anchor, [views[1, row]], views, row, 0.4)
        assert value.item() == pytest.approx(expected, rel=1e-4)


def test_every_view_gets_a_gradient(rng):
    batch = _batch(rng.normal(size=(2, 5, 4)), rng.normal(size=(5, 4)))
    AdversarialContrastive()(batch).total.backward()
    assert (batch.projections.grad.abs().sum(dim=(1, 2)) > 0).all()
    assert batch.adversarial.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "values", [{"temperature": 0.0}, {"weight": -1.0}, {"radius_255": -2.0}, {"norm": "l0"}]
)
def test_arguments_out_of_range_are_refused(values):
    with pytest.raises(InvalidInput, match="expected"):
        AdversarialContrastive(**values)


def _batch(views, changed):
    z, adversarial = (
        torch.tensor(a, dtype=torch.float32).requires_grad_() for a in (views, changed[None])
    )
    return Batch(z, z, adversarial=adversarial)
