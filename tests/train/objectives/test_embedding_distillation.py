"""Distillation of embeddings: distance to the teacher's, and similarities between images."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.embedding_distillation import EmbeddingDistillation

SIZES = Sizes(dim=5, feature_dim=5, embedding_dims=(3,))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_distance_and_similarities(rng):
    objective = EmbeddingDistillation(head="linear", cosine=0.5, similarity=2.0)
    features, target = rng.normal(size=(1, 4, 5)), rng.normal(size=(4, 3))
    torch.manual_seed(0)
    module = objective.build(SIZES)
    weight = module[0].weight.detach().double().numpy()
    distance = similarity = 0.0
    for i in range(4):
        student = unit(weight @ features[0, i])
        distance += np.sum((student - unit(target[i])) ** 2) / 4
        for j in range(4):
            own = unit(features[0, i]) @ unit(features[0, j])
            theirs = unit(target[i]) @ unit(target[j])
            similarity += (own - theirs) ** 2 / 12
    x = torch.tensor(features, dtype=torch.float32)
    embeddings = (torch.tensor(target, dtype=torch.float32),)
    parts = objective(Batch(x, x, module=module, embeddings=embeddings)).parts
    assert parts["cosine"].item() == pytest.approx(0.5 * distance, rel=1e-4)
    assert parts["similarity"].item() == pytest.approx(2 * similarity, rel=1e-4)


def test_without_a_head_features_stand_for_embeddings(rng):
    objective = EmbeddingDistillation(head="none")
    sizes = Sizes(dim=3, feature_dim=3, embedding_dims=(3,))
    x = torch.tensor(rng.normal(size=(1, 4, 3)), dtype=torch.float32)
    batch = Batch(x, x, module=objective.build(sizes), embeddings=(7 * x[0],))
    assert objective(batch).total.item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(InvalidInput, match=r"3 dimensions, got 5.*head = 'linear'"):
        objective.build(SIZES)


def test_it_names_its_teacher():
    assert EmbeddingDistillation(teacher="models/a/1").bundles == ("models/a/1",)


@pytest.mark.parametrize(
    "arguments", [{"hidden": 0}, {"cosine": -1.0}, {"cosine": 0.0, "similarity": 0.0}]
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        EmbeddingDistillation(**arguments)
