"""PS-KD against equations 2 to 4 of the paper."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.ps_kd import PSKD

OBJECTIVE = PSKD(share=0.6)
SIZES = Sizes(dim=4, feature_dim=4, classes=3, images=10)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_targets_mix_in_the_last_prediction(rng):
    torch.manual_seed(0)
    module = OBJECTIVE.build(SIZES)
    weight, bias = (p.detach().double().numpy() for p in module.linear.parameters())
    labels, indices = np.array([0, 2, 1]), np.array([7, 0, 4])
    past = {}
    for progress in (0.0, 0.3, 0.9):
        features = rng.normal(size=(1, 3, 4))
        expected = 0.0
        for row, label, index in zip(features[0], labels, indices, strict=True):
            p = softmax(weight @ row + bias)
            hard = np.eye(3)[label]
            alpha = 0.6 * progress
            target = (1 - alpha) * hard + alpha * past[index] if index in past else hard
            expected -= np.sum(target * np.log(p)) / 3
            past[index] = p
        loss = OBJECTIVE(_batch(features, labels, indices, module, progress)).total.item()
        assert loss == pytest.approx(expected, rel=1e-4)


def test_an_image_that_was_never_seen_keeps_its_label(rng):
    module = OBJECTIVE.build(SIZES)
    features, labels = rng.normal(size=(1, 2, 4)), np.array([1, 2])
    loss = OBJECTIVE(_batch(features, labels, np.array([3, 8]), module, 1.0)).total
    x = torch.tensor(features[0], dtype=torch.float32)
    plain = torch.nn.functional.cross_entropy(module.linear(x), torch.tensor(labels))
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert module.seen.nonzero().flatten().tolist() == [3, 8]


def test_the_head_is_the_linear_layer():
    module = OBJECTIVE.build(SIZES)
    assert OBJECTIVE.classifier(module) is module.linear


def test_a_share_above_one_is_refused():
    with pytest.raises(InvalidInput, match="share in"):
        PSKD(share=1.5)


def _batch(features, labels, indices, module, progress):
    x = torch.tensor(features, dtype=torch.float32)
    labels, indices = torch.tensor(labels), torch.tensor(indices)
    return Batch(x, x, module=module, labels=labels, indices=indices, progress=progress)
