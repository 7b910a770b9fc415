"""data2vec against equation 3 and sections 3.2 and 3.3 of the paper."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.data2vec import Data2Vec

OBJECTIVE = Data2Vec(layers=2, beta=0.5)


def test_equation_3(rng):
    tokens = rng.normal(size=(1, 4, 6, 5))
    blocks = 3 * rng.normal(size=(1, 4, 3, 6, 5)) + 1
    mask = rng.random(size=(1, 4, 6)) < 0.5
    mask[0, 0, 0] = True
    batch = _batch(tokens, blocks, mask)
    weight = batch.module.predictor.weight.detach().double().numpy()
    bias = batch.module.predictor.bias.detach().double().numpy()
    distances = []
    for image in range(4):
        for patch in range(6):
            if not mask[0, image, patch]:
                continue
            last = [blocks[0, image, layer, patch] for layer in (1, 2)]
            target = sum((x - x.mean()) / np.sqrt(x.var() + 1e-5) for x in last) / 2
            errors = np.abs(weight @ tokens[0, image, patch] + bias - target)
            distances += [e**2 / 2 / 0.5 if e <= 0.5 else e - 0.25 for e in errors]
    assert OBJECTIVE(batch).total.item() == pytest.approx(np.mean(distances), rel=1e-4)


def test_visible_patches_and_the_teacher_get_no_gradient(rng):
    mask = np.zeros((1, 2, 4), dtype=bool)
    mask[0, :, 1] = True
    batch = _batch(rng.normal(size=(1, 2, 4, 5)), rng.normal(size=(1, 2, 3, 4, 5)), mask)
    batch.teacher_blocks.requires_grad_()
    OBJECTIVE(batch).total.backward()
    assert batch.teacher_blocks.grad is None
    moved = batch.tokens.grad[0].abs().sum(dim=2) > 0
    torch.testing.assert_close(moved, batch.mask[0])


def test_momentum_rises_linearly():
    objective = Data2Vec(momentum=0.9, final_momentum=1.0, rise=0.5)
    assert objective.teacher_momentum(0.25) == pytest.approx(0.95)
    assert objective.teacher_momentum(0.75) == pytest.approx(1.0)


def test_hidden_patches_lie_together():
    generator = torch.Generator().manual_seed(0)
    mask = OBJECTIVE.hide((8, 8), 64, generator).reshape(64, 8, 8)
    assert mask.flatten(1).sum(dim=1).tolist() == [38] * 64
    # Of hidden patches drawn one by one 60 % would have a hidden neighbour to the right.
    pairs = mask[:, :, :-1] & mask[:, :, 1:]
    assert pairs.sum() / mask[:, :, :-1].sum() > 0.7


def test_the_mask_token_is_what_it_trains():
    module = OBJECTIVE.build(Sizes(dim=4, feature_dim=5))
    assert OBJECTIVE.mask_token(module) is module.mask_token


@pytest.mark.parametrize("arguments", [{"layers": 0}, {"beta": 0.0}, {"hidden": 1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        Data2Vec(**arguments)


def _batch(tokens, blocks, mask):
    torch.manual_seed(0)
    x = torch.tensor(tokens, dtype=torch.float32)
    return Batch(
        x.mean(dim=2),
        x.mean(dim=2),
        module=OBJECTIVE.build(Sizes(dim=5, feature_dim=5)),
        tokens=x.requires_grad_(),
        teacher_blocks=torch.tensor(blocks, dtype=torch.float32),
        mask=torch.tensor(mask),
    )
