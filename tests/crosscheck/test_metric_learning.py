"""Our retrieval and clustering numbers against pytorch-metric-learning's."""

import importlib

import numpy as np
import pytest

from embedkit.measures.clustering import contingency, normalised_mutual_information
from embedkit.measures.knn import nearest
from embedkit.measures.ranking import map_at_r, precision

pytestmark = pytest.mark.peer

CLASSES = 6


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("pytorch_metric_learning")
    return importlib.import_module("pytorch_metric_learning.utils.accuracy_calculator")


@pytest.fixture(scope="module")
def sets():
    """Unit vectors of six classes of different sizes: a bank, and queries apart from it."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(CLASSES, 8))
    found = []
    for counts in ([40, 30, 20, 25, 35, 10], [9, 4, 6, 8, 3, 10]):
        labels = np.repeat(np.arange(CLASSES), counts)
        z = centres[labels] + 1.5 * rng.normal(size=(len(labels), 8))
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        found += [z.astype(np.float32), labels]
    return found


def exact_search(query, k, reference, ref_includes_query):
    """The peer asks a function for neighbours; FAISS is not needed for so few."""
    import torch

    assert not ref_includes_query
    rows, cosines = nearest(reference.numpy(), query.numpy(), k)
    return torch.from_numpy(2 - 2 * cosines), torch.from_numpy(rows)


def test_map_at_r_and_precision(peer, sets):
    import torch

    bank, labels, queries, wanted = sets
    calculator = peer.AccuracyCalculator(
        include=("mean_average_precision_at_r", "precision_at_1", "r_precision"),
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=exact_search,
    )
    theirs = calculator.get_accuracy(
        torch.from_numpy(queries),
        torch.from_numpy(wanted),
        torch.from_numpy(bank),
        torch.from_numpy(labels),
        ref_includes_query=False,
    )
    total = np.bincount(labels)[wanted]
    rows, _ = nearest(bank, queries, int(total.max()))
    relevant = labels[rows] == wanted[:, np.newaxis]
    assert map_at_r(relevant, total).mean() == pytest.approx(
        theirs["mean_average_precision_at_r"], abs=1e-6
    )
    assert precision(relevant, 1).mean() == pytest.approx(theirs["precision_at_1"], abs=1e-6)


def test_mutual_information_of_given_groups(peer, sets):
    import torch

    bank, labels, _, _ = sets
    groups = bank[:, :3].argmax(axis=1)
    calculator = peer.AccuracyCalculator(
        include=("NMI",),
        device=torch.device("cpu"),
        kmeans_func=lambda _, __: torch.from_numpy(groups),
    )
    theirs = calculator.get_accuracy(torch.from_numpy(bank), torch.from_numpy(labels))["NMI"]
    table = contingency(labels, groups).astype(float)
    assert normalised_mutual_information(table) == pytest.approx(theirs, abs=1e-6)
