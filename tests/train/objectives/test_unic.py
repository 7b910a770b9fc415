"""UNIC: standardised teachers, cosine and smooth L1, and teacher dropping."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.unic import UNIC

SIZES = Sizes(dim=5, feature_dim=5, images=20, embedding_dims=(3, 6))


def distances(module, features, known, everything):
    """Of every teacher to every image, from the definition."""
    table = np.zeros((2, len(features)))
    for number, (own, every) in enumerate(zip(known, everything, strict=True)):
        x = torch.tensor(features, dtype=torch.float32)
        predicted = module.heads[number](x).detach().double().numpy()
        for image, row in enumerate(own):
            target = (row - every.mean(axis=0)) / every.std(axis=0, ddof=1)
            q = predicted[image]
            cosine = q @ target / np.linalg.norm(q) / np.linalg.norm(target)
            errors = np.abs(q - target)
            smooth = np.where(errors < 1, errors**2 / 2, errors - 0.5).mean()
            table[number, image] = 1 - cosine + smooth
    return table


def test_all_teachers_count_without_dropping(rng):
    objective = UNIC(teachers=("a", "b"), drop=0.0)
    batch, everything = _batch(objective, rng)
    table = distances(batch.module, batch.features[0].numpy(), _numpy(batch), everything)
    assert objective(batch).total.item() == pytest.approx(table.mean(), rel=1e-4)


def test_only_the_worst_matched_counts_when_all_others_are_dropped(rng):
    objective = UNIC(teachers=("a", "b"), drop=1.0)
    batch, everything = _batch(objective, rng)
    table = distances(batch.module, batch.features[0].numpy(), _numpy(batch), everything)
    assert len(set(table.argmax(axis=0))) == 2
    assert objective(batch).total.item() == pytest.approx(table.max(axis=0).mean(), rel=1e-4)


def test_the_generator_decides_who_is_dropped(rng):
    objective = UNIC(teachers=("a", "b"), drop=0.5)
    batch, _ = _batch(objective, rng)
    losses = []
    for seed in (0, 0, 1):
        batch.generator.manual_seed(seed)
        losses.append(objective(batch).total.item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("arguments", [{"drop": 1.5}, {"hidden": 0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        UNIC(**arguments)


def _numpy(batch):
    return [e.double().numpy() for e in batch.embeddings]


def _batch(objective, rng):
    torch.manual_seed(0)
    module = objective.build(SIZES)
    everything = [5 * rng.normal(size=(20, d)) + 1 for d in SIZES.embedding_dims]
    tensors = tuple(torch.tensor(e, dtype=torch.float32) for e in everything)
    objective.prepare(module, tensors)
    x = torch.tensor(rng.normal(size=(1, 8, 5)), dtype=torch.float32)
    embeddings = tuple(t[:8] for t in tensors)
    generator = torch.Generator().manual_seed(0)
    return Batch(x, x, module=module, embeddings=embeddings, generator=generator), everything
