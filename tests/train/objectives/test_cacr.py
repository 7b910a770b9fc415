"""CACR against section 3 of the paper, written with loops."""

import math

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch
from embedkit.train.objectives.cacr import CACR


def attraction_and_repulsion(z, attraction, repulsion):
    """Mean expected cost of positives, and minus that of negatives."""
    v, b, _ = z.shape
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    attracted = repelled = 0.0
    for view in range(v):
        for i in range(b):
            query = z[view, i]
            near = [np.sum((query - z[o, i]) ** 2) for o in range(v) if o != view]
            weights = [math.exp(attraction * c) for c in near]
            attracted += np.dot(weights, near) / sum(weights)
            far = [np.sum((query - z[o, k]) ** 2) for o in range(v) for k in range(b) if k != i]
            weights = [math.exp(-repulsion * c) for c in far]
            repelled -= np.dot(weights, far) / sum(weights)
    return attracted / (v * b), repelled / (v * b)


@pytest.mark.parametrize(("views", "images"), [(2, 2), (4, 5)])
def test_section_3(rng, views, images):
    z = rng.normal(size=(views, images, 4))
    loss = CACR(views, attraction=0.7, repulsion=1.6)(_batch(z))
    attracted, repelled = attraction_and_repulsion(z, 0.7, 1.6)
    assert loss.parts["attraction"].item() == pytest.approx(attracted, rel=1e-5)
    assert loss.parts["repulsion"].item() == pytest.approx(repelled, rel=1e-5)


def test_sharpness_looks_at_far_positives_and_at_near_negatives(rng):
    z = rng.normal(size=(4, 5, 3))
    even, sharp = CACR(4, 0.0, 0.0)(_batch(z)).parts, CACR(4, 5.0, 5.0)(_batch(z)).parts
    assert sharp["attraction"] > even["attraction"]
    assert sharp["repulsion"] > even["repulsion"]


@pytest.mark.parametrize("arguments", [{"views": 1}, {"attraction": -1.0}, {"repulsion": -1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="at least"):
        CACR(**arguments)


def _batch(z):
    tensor = torch.tensor(z, dtype=torch.float32)
    return Batch(tensor, tensor)
