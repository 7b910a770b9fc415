"""Subsets against exhaustive formulations of their papers."""

import numpy as np
import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.images.subset import k_centre, most_similar
from embedkit.train.loop import train


@pytest.fixture
def z(rng):
    vectors = rng.normal(size=(36, 5))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def value(similar, chosen):
    """Joshi and Mirzasoleiman's objective of one class: chosen against left out."""
    left = [i for i in range(len(similar)) if i not in chosen]
    return similar[np.ix_(left, sorted(chosen))].sum()


def greedy(z, count):
    """The same greedy choice by the objective itself, evaluated anew for every candidate."""
    similar = np.maximum(z @ z.T, 0)
    chosen: set[int] = set()
    for _ in range(count):
        candidates = [i for i in range(len(z)) if i not in chosen]
        chosen.add(max(candidates, key=lambda i: value(similar, {*chosen, i})))
    return chosen


def test_the_most_similar_of_each_class(z):
    classes = np.arange(36) % 3
    expected = set()
    for c in range(3):
        rows = np.flatnonzero(classes == c)
        expected |= {int(rows[i]) for i in greedy(z[rows], 5)}
    found = most_similar(torch.tensor(z), torch.tensor(classes), 5 / 12)
    assert set(found.tolist()) == expected
    assert found.tolist() == sorted(found.tolist())


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("share", [0.01, 0.4, 0.5, 0.6, 0.99, 1.0])
def test_small_classes_add_up_to_the_share_of_all(z, size, share):
    """A share rounded class by class kept nothing of classes of one, all of them from 0.5."""
    clusters = torch.arange(36) // size
    found = most_similar(torch.tensor(z), clusters, share)
    assert len(set(found.tolist())) == max(1, round(share * 36))
    for c in clusters.unique():
        count = int((clusters == c).sum())
        assert abs(int((clusters[found] == c).sum()) - share * count) < 1


def test_outliers_are_left_out(rng):
    near = np.array([1.0, 0, 0, 0]) + 0.1 * rng.normal(size=(30, 4))
    z = np.concatenate([near, -np.eye(4)[:1], np.eye(4)[1:3]])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = most_similar(torch.tensor(z), torch.zeros(33, dtype=torch.int64), 0.4)
    assert found.max() < 30


def test_k_centre_covers_within_twice_the_best_radius(z):
    """Gonzalez's bound, against the best of many random choices (no worse than the best)."""
    distances = np.linalg.norm(z[:, None] - z[None], axis=2)
    chosen = k_centre(torch.tensor(z), 4 / 36).tolist()
    assert len(set(chosen)) == 4
    radius = distances[:, chosen].min(axis=1).max()
    from itertools import combinations

    best = min(distances[:, c].min(axis=1).max() for c in combinations(range(20), 4))
    assert radius <= 2 * best
    # By the definition: each next centre was the farthest image from those before.
    first = int(np.square(z - z.mean(axis=0)).sum(axis=1).argmin())
    expected = [first]
    while len(expected) < 4:
        expected.append(int(distances[:, expected].min(axis=1).argmax()))
    assert chosen == sorted(expected)


class Flat:
    """An embedder of the raw pixels."""

    dim, digest = 64, "sha256:flat"

    def embed(self, images):
        flat = images.reshape(len(images), -1).astype(np.float32) + 1
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)


@pytest.mark.parametrize("subset", ["similar", "k_centre", "random"])
def test_a_run_on_a_subset(small, tmp_path, subset):
    sampling = {"subset": subset, "subset_share": 0.5, "clusters": 4, "proxy": "flat"}
    recipe = small(sampling=sampling, schedule={"max_steps": 2})
    load = {"flat": Flat()}.__getitem__
    first = train(recipe, tmp_path / "a", load_bundle=load)
    again = train(recipe, tmp_path / "b", load_bundle=load)
    whole = train(small(schedule={"max_steps": 2}), tmp_path / "whole")
    assert first.images == 35
    assert first.data_digest == again.data_digest != whole.data_digest


def test_what_is_missing_for_a_subset_is_said(small, tmp_path):
    sampling = {"subset": "similar"}
    with pytest.raises(InvalidInput, match=r"sampling\.proxy=models/digits/1"):
        train(small(sampling=sampling), tmp_path / "run")
    sampling = {"subset": "random", "subset_share": 0.1}
    with pytest.raises(InvalidInput, match=r"batch_size=16 images, got 7 of 70.*subset_share"):
        train(small(sampling=sampling), tmp_path / "run")
