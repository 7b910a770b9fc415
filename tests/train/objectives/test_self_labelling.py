"""Self-labelling against equations 3 to 5 of the paper."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.self_labelling import SelfLabelling

SIZES = Sizes(dim=4, feature_dim=9, images=12)
OBJECTIVE = SelfLabelling(clusters=3, heads=2, sharpness=5.0, iterations=200)


def log_softmax(x):
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def transport(log_p, sharpness):
    """Equation 5: Q = diag(alpha) P^lambda diag(beta), by fixed-point updates."""
    p = np.exp(sharpness * log_p).T
    k, n = p.shape
    alpha, beta = np.ones(k) / k, np.ones(n) / n
    for _ in range(200):
        alpha = 1 / (k * (p @ beta))
        beta = 1 / (n * (alpha @ p))
    return (alpha[:, None] * p * beta).T


def test_it_classifies_by_its_labels(rng):
    module, indices = _module(), np.array([3, 0, 7, 11, 5])
    z = rng.normal(size=(2, 5, 4))
    labels = module.labels.numpy().copy()
    terms = []
    for head, own in zip(module.heads, labels, strict=True):
        weight, bias = (p.detach().double().numpy() for p in head.parameters())
        for view in z:
            log_p = log_softmax(view @ weight.T + bias)
            terms += [-log_p[i, own[index]] for i, index in enumerate(indices)]
    loss = OBJECTIVE(_batch(z, indices, module)).total.item()
    assert loss == pytest.approx(np.mean(terms), rel=1e-5)


def test_first_labels_are_balanced():
    counts = [torch.bincount(labels, minlength=3).tolist() for labels in _module().labels]
    assert counts == [[4, 4, 4], [4, 4, 4]]


def test_an_epoch_later_labels_are_those_of_the_transport(rng):
    module = _module()
    z = rng.normal(size=(2, 12, 4))
    before = module.labels.clone()
    for start in (0, 4, 8):
        part = np.arange(start, start + 4)
        if start < 8:
            OBJECTIVE(_batch(z[:, part], part, module))
            assert torch.equal(module.labels, before)
    OBJECTIVE(_batch(z[:, 8:], np.arange(8, 12), module))
    for head, labels in zip(module.heads, module.labels, strict=True):
        weight, bias = (p.detach().double().numpy() for p in head.parameters())
        q = transport(log_softmax(z.mean(axis=0) @ weight.T + bias), 5.0)
        np.testing.assert_allclose(q.sum(axis=0), 1 / 3, rtol=1e-6)
        assert labels.tolist() == q.argmax(axis=1).tolist()


@pytest.mark.parametrize("arguments", [{"clusters": 1}, {"heads": 0}, {"sharpness": 0.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        SelfLabelling(**arguments)


def _module():
    torch.manual_seed(0)
    return OBJECTIVE.build(SIZES)


def _batch(z, indices, module):
    z = torch.tensor(z, dtype=torch.float32)
    return Batch(z, z, module=module, indices=torch.tensor(indices))
