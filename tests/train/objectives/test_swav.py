"""SwAV against equations 1 to 5 of the paper."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.swav import SwAV


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def codes(scores, epsilon, iterations):
    """Equation 5: scale rows (prototypes), then columns (images), in turn."""
    q = np.exp(scores.T / epsilon)
    k, b = q.shape
    q /= q.sum()
    for _ in range(iterations):
        for row in range(k):
            q[row] /= q[row].sum() * k
        for column in range(b):
            q[:, column] /= q[:, column].sum() * b
    return (q * b).T


def log_softmax(x):
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


def expected(z, local, prototypes, *, extra=((), ())):
    terms = []
    for view in (0, 1):
        together = np.concatenate([unit(z[view]), *extra[view]])
        code = codes(together @ unit(prototypes).T, 0.05, 3)
        for other in [z[1 - view], *local]:
            for image in range(z.shape[1]):
                log_p = log_softmax(unit(other[image]) @ unit(prototypes).T / 0.1)
                terms.append(-np.sum(code[image] * log_p))
    return np.mean(terms)


def test_equations_1_to_5(rng):
    z, local = rng.normal(size=(2, 6, 4)), rng.normal(size=(3, 6, 4))
    objective = SwAV(prototypes=5)
    batch = _batch(objective, z, local)
    prototypes = batch.module.weight.detach().double().numpy()
    loss = objective(batch).total.item()
    assert loss == pytest.approx(expected(z, local, prototypes), rel=1e-4)


@pytest.mark.parametrize("progress", [0.1, 0.5])
def test_queued_projections_are_assigned_along_once_they_are_used(rng, progress):
    z = rng.normal(size=(2, 6, 4))
    objective = SwAV(prototypes=5, queue=8, queue_from=0.2)
    batch = _batch(objective, z, np.empty((0, 6, 4)), progress=progress)
    prototypes = batch.module.weight.detach().double().numpy()
    queued = [[q.vectors.double().numpy().copy()] for q in batch.module.queues]
    extra = queued if progress >= 0.2 else ((), ())
    loss = objective(batch).total.item()
    assert loss == pytest.approx(expected(z, (), prototypes, extra=extra), rel=1e-4)
    for view, queue in enumerate(batch.module.queues):
        np.testing.assert_allclose(queue.vectors[:6].numpy(), unit(z[view]), rtol=1e-5)


@pytest.mark.parametrize("arguments", [{"epsilon": 0.0}, {"queue": -1}, {"iterations": 0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        SwAV(**arguments)


def _batch(objective, z, local, progress=0.5):
    torch.manual_seed(0)
    z = torch.tensor(z, dtype=torch.float32)
    small = None if local is None else torch.tensor(local, dtype=torch.float32)
    module = objective.build(Sizes(dim=4, feature_dim=9))
    return Batch(z, z, module=module, local=small, progress=progress)
