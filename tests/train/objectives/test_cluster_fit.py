"""ClusterFit: k-means of the teacher's embeddings, then cross entropy."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import Batch, Sizes
from embedkit.train.objectives.cluster_fit import ClusterFit

SIZES = Sizes(dim=5, feature_dim=5, images=30, embedding_dims=(4,))
OBJECTIVE = ClusterFit(teacher="somewhere", clusters=3)


def test_labels_are_the_clusters_of_the_teacher(rng):
    module, blob = _prepared(rng)
    # Blobs far apart are what any k-means finds: equal blob, equal label.
    labels = module.labels.numpy()
    assert len({(b, label) for b, label in zip(blob, labels, strict=True)}) == 3
    assert len(set(labels)) == 3


def test_it_classifies_by_them(rng):
    module, _ = _prepared(rng)
    features, indices = rng.normal(size=(1, 4, 5)), [29, 3, 8, 0]
    weight, bias = (p.detach().double().numpy() for p in module.linear.parameters())
    expected = 0.0
    for row, index in zip(features[0], indices, strict=True):
        logits = weight @ row + bias
        expected -= (logits[module.labels[index]] - np.log(np.exp(logits).sum())) / 4
    x = torch.tensor(features, dtype=torch.float32)
    batch = Batch(
        x, x, module=module, indices=torch.tensor(indices), embeddings=(torch.zeros(4, 4),)
    )
    assert OBJECTIVE(batch).total.item() == pytest.approx(expected, rel=1e-5)


def test_fewer_images_than_clusters_give_each_its_own():
    module = ClusterFit(clusters=100).build(SIZES)
    assert module.linear.out_features == 30


def test_it_names_its_teacher():
    assert OBJECTIVE.bundles == ("somewhere",)


@pytest.mark.parametrize("arguments", [{"clusters": 1}, {"iterations": 0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match="at least"):
        ClusterFit(**arguments)


def _prepared(rng):
    torch.manual_seed(0)
    module = OBJECTIVE.build(SIZES)
    blob = np.arange(30) % 3
    embeddings = 100 * np.eye(4)[blob] + rng.normal(size=(30, 4))
    OBJECTIVE.prepare(module, (torch.tensor(embeddings, dtype=torch.float32),))
    return module, blob
