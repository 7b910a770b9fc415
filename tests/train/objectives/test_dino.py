"""DINO against equations 1 to 4 of the paper."""

import copy

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.dino import DINO

OBJECTIVE = DINO(prototypes=7, centre_momentum=0.8, warmup=0.5)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def cosines(z, prototypes):
    return np.array([z @ w / np.linalg.norm(z) / np.linalg.norm(w) for w in prototypes])


@pytest.mark.parametrize(
    ("progress", "temperature"), [(0.0, 0.04), (0.25, 0.055), (0.5, 0.07), (1, 0.07)]
)
def test_equations_1_to_4(rng, progress, temperature):
    student, teacher = rng.normal(size=(2, 2, 5, 4))
    local = rng.normal(size=(2, 5, 4))
    batch = _batch(student, teacher, local, progress=progress)
    own = batch.module.weight.detach().double().numpy()
    taught = batch.teacher_module.weight.detach().double().numpy()
    centre = rng.normal(size=7)
    batch.module.centre.copy_(torch.tensor(centre))

    terms, seen = [], np.zeros(7)
    for target_view in (0, 1):
        for image in range(5):
            raw = cosines(teacher[target_view, image], taught)
            seen += raw / 10
            p = softmax((raw - centre) / temperature)
            for view in [student[1 - target_view], *local]:
                q = softmax(cosines(view[image], own) / 0.1)
                terms.append(-np.sum(p * np.log(q)))
    assert OBJECTIVE(batch).total.item() == pytest.approx(np.mean(terms), rel=1e-4)
    moved = batch.module.centre.numpy()
    np.testing.assert_allclose(moved, 0.8 * centre + 0.2 * seen, rtol=1e-4)


def test_without_small_crops_the_whole_views_are_all(rng):
    student, teacher = rng.normal(size=(2, 2, 5, 4))
    loss = OBJECTIVE(_batch(student, teacher, np.empty((0, 5, 4)))).total.item()
    once = OBJECTIVE(_batch(student, teacher, student[:1])).total.item()
    assert np.isfinite(loss)
    assert loss != pytest.approx(once)


def test_only_the_student_gets_a_gradient(rng):
    student, teacher = rng.normal(size=(2, 2, 5, 4))
    batch = _batch(student, teacher, rng.normal(size=(2, 5, 4)))
    batch.teacher.requires_grad_()
    OBJECTIVE(batch).total.backward()
    assert batch.teacher.grad is None
    assert all(p.grad is None for p in batch.teacher_module.parameters())
    assert all(p.grad.abs().sum() > 0 for p in batch.module.parameters())


@pytest.mark.parametrize(
    "arguments",
    [{"temperature": 0.0}, {"prototypes": 1}, {"warmup": 2.0}],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        DINO(**arguments)


def _batch(student, teacher, local, *, progress=0.5):
    torch.manual_seed(0)
    module = OBJECTIVE.build(Sizes(dim=4, feature_dim=9))
    taught = copy.deepcopy(module)
    with torch.no_grad():
        taught.weight.add_(torch.randn_like(taught.weight))
    z, t = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher))
    return Batch(
        z.requires_grad_(),
        z,
        module=module,
        teacher=t,
        teacher_module=taught,
        local=torch.tensor(local, dtype=torch.float32),
        progress=progress,
    )
