"""LOOK: the error of a weighted nearest-neighbour classifier that leaves one out."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.look import LOOK


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def expected(student, keys, labels, remembered, remembered_labels, k, temperature):
    total = 0.0
    for i, query in enumerate(unit(student)):
        known = [(query @ key, labels[j]) for j, key in enumerate(unit(keys)) if j != i]
        past = zip(remembered, remembered_labels, strict=True)
        known += [(query @ key, label) for key, label in past if label >= 0]
        known.sort(key=lambda pair: -pair[0])
        chosen = known[:k]
        kin = [pair for pair in known if pair[1] == labels[i]]
        if not kin:
            continue
        if kin[0] not in chosen:
            chosen.append(kin[0])
        weights = [(np.exp(cosine / temperature), label) for cosine, label in chosen]
        right = sum(w for w, label in weights if label == labels[i])
        total -= np.log(right / sum(w for w, _ in weights))
    return total / len(student)


def test_leave_one_out_over_batch_and_memory(rng):
    objective = LOOK(neighbours=4, queue=8, temperature=0.3)
    labels = np.array([0, 1, 2, 0, 1])
    module = objective.build(Sizes(dim=3, feature_dim=9))
    remembered, remembered_labels = np.zeros((0, 3)), np.zeros(0, dtype=int)
    for _ in range(3):
        student, teacher = rng.normal(size=(2, 1, 5, 3))
        loss = objective(_batch(student, teacher, labels, module)).total.item()
        reference = expected(
            student[0], teacher[0], labels, remembered, remembered_labels, 4, 0.3
        )
        assert loss == pytest.approx(reference, rel=1e-4)
        remembered = np.concatenate([remembered, unit(teacher[0])])[-8:]
        remembered_labels = np.concatenate([remembered_labels, labels])[-8:]
    assert sorted(module.labels.tolist()) == sorted(remembered_labels.tolist())


def test_an_image_alone_in_its_class_counts_nothing(rng):
    objective = LOOK(neighbours=2, queue=4)
    student, teacher = rng.normal(size=(2, 1, 3, 3))
    module = objective.build(Sizes(dim=3, feature_dim=9))
    batch = _batch(student, teacher, np.array([0, 1, 2]), module)
    loss = objective(batch).total
    assert loss.item() == 0
    loss.backward()
    assert torch.isfinite(batch.projections.grad).all()


@pytest.mark.parametrize(
    "arguments", [{"neighbours": 0}, {"queue": 0}, {"temperature": 0.0}, {"momentum": -0.1}]
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        LOOK(**arguments)


def _batch(student, teacher, labels, module):
    z, t = (torch.tensor(a, dtype=torch.float32) for a in (student, teacher))
    z.requires_grad_()
    return Batch(z, z, module=module, teacher=t, labels=torch.tensor(labels))
