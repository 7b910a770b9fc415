"""MSN against equation 1 of the paper."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.msn import MSN

OBJECTIVE = MSN(prototypes=6, spread=0.7)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def cosines(z, prototypes):
    return np.array([z @ w / np.linalg.norm(z) / np.linalg.norm(w) for w in prototypes])


def test_equation_1(rng):
    student, teacher = rng.normal(size=(2, 2, 5, 4))
    local = rng.normal(size=(2, 5, 4))
    batch = _batch(student, teacher, local)
    prototypes = batch.module.weight.detach().double().numpy()
    crossed, mean, count = [], np.zeros(6), 0
    for target_view in (0, 1):
        for image in range(5):
            target = softmax(cosines(teacher[target_view, image], prototypes) / 0.025)
            for view in [student[1 - target_view], *local]:
                anchor = softmax(cosines(view[image], prototypes) / 0.1)
                crossed.append(-np.sum(target * np.log(anchor)))
                mean += anchor
                count += 1
    mean /= count
    entropy = -np.sum(mean * np.log(mean))
    loss = OBJECTIVE(batch)
    assert loss.parts["assignment"].item() == pytest.approx(np.mean(crossed), rel=1e-4)
    assert loss.parts["spread"].item() == pytest.approx(-0.7 * entropy, rel=1e-4)


def test_it_drops_the_share_of_patches():
    generator = torch.Generator().manual_seed(0)
    mask = MSN(hidden=0.3).hide((5, 4), 8, generator)
    assert mask.shape == (8, 20)
    assert mask.sum(dim=1).tolist() == [6] * 8
    assert len({tuple(row.tolist()) for row in mask}) > 1
    assert OBJECTIVE.mask_token(torch.nn.Identity()) is None


def test_teacher_gets_no_gradient(rng):
    student, teacher = rng.normal(size=(2, 2, 5, 4))
    batch = _batch(student, teacher, rng.normal(size=(2, 5, 4)))
    batch.teacher.requires_grad_()
    OBJECTIVE(batch).total.backward()
    assert batch.teacher.grad is None


@pytest.mark.parametrize(
    "arguments", [{"hidden": 0.0}, {"hidden": 1.0}, {"spread": -1.0}, {"momentum": 1.1}]
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        MSN(**arguments)


def _batch(student, teacher, local):
    torch.manual_seed(0)
    z, t, small = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher, local))
    return Batch(
        z.requires_grad_(),
        z,
        module=OBJECTIVE.build(Sizes(dim=4, feature_dim=9)),
        teacher=t,
        local=small,
        mask=torch.zeros(2, 5, 4, dtype=torch.bool),
    )
