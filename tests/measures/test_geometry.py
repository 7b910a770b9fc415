import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from embedkit.errors import InvalidInput
from embedkit.measures import geometry
from embedkit.measures.geometry import alignment, effective_rank, embedding_std, uniformity


@pytest.fixture
def sphere(rng):
    z = rng.normal(size=(400, 16))
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def test_alignment_is_the_mean_squared_distance(sphere, rng):
    other = sphere[rng.permutation(400)]
    expected = np.mean([np.sum((a - b) ** 2) for a, b in zip(sphere, other, strict=True)])
    assert alignment(sphere, other) == pytest.approx(expected, rel=1e-5)
    assert alignment(sphere, sphere) == 0.0
    assert alignment(sphere, -sphere) == pytest.approx(4.0, rel=1e-6)


def test_uniformity_is_over_pairs_of_different_images(sphere):
    for sharpness in (2.0, 0.5):
        squared = pdist(sphere.astype(np.float64), "sqeuclidean")
        expected = np.log(np.mean(np.exp(-sharpness * squared)))
        assert uniformity(sphere, sharpness=sharpness) == pytest.approx(expected, rel=1e-9)


def test_uniformity_of_a_collapse_is_zero_and_of_two_poles_its_least():
    assert uniformity(np.tile([[0.6, 0.8]], (5, 1))) == pytest.approx(0.0, abs=1e-12)
    assert uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)


def test_uniformity_in_blocks_is_the_same(sphere, monkeypatch):
    expected = uniformity(sphere)
    monkeypatch.setattr(geometry, "_BLOCK_ROWS", 7)
    assert uniformity(sphere) == pytest.approx(expected, rel=1e-12)


def test_effective_rank_follows_its_definition(rng):
    z = rng.normal(size=(100, 8)) * np.arange(1, 9)
    singular = np.sqrt(np.linalg.eigvalsh(z.T @ z))
    shares = singular / singular.sum() + 1e-7
    assert effective_rank(z) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


def test_effective_rank_counts_equal_directions():
    identity = np.eye(6)
    assert effective_rank(identity) == pytest.approx(6.0, rel=1e-4)
    assert effective_rank(identity[:, :3]) == pytest.approx(3.0, rel=1e-4)
    assert effective_rank(np.ones((50, 6))) == pytest.approx(1.0, rel=1e-4)
    assert effective_rank(np.zeros((4, 6))) == 0.0


def test_effective_rank_ignores_rotation_and_scale(sphere, rng):
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    assert effective_rank(5 * sphere @ rotation) == pytest.approx(
        effective_rank(sphere), rel=1e-4
    )


def test_embedding_std_of_a_sphere_and_of_a_collapse(sphere):
    assert embedding_std(sphere) == pytest.approx(1 / math.sqrt(16), rel=0.05)
    assert embedding_std(np.tile(sphere[:1], (9, 1))) == 0.0
    assert embedding_std(sphere) == pytest.approx(np.std(sphere, axis=0).mean(), rel=1e-5)


def test_values_are_plain_floats(sphere):
    values = (
        alignment(sphere, sphere),
        uniformity(sphere),
        effective_rank(sphere),
        embedding_std(sphere),
    )
    assert {type(value) for value in values} == {float}


@pytest.mark.parametrize("measure", [uniformity, effective_rank, embedding_std])
def test_values_that_are_not_finite_are_refused(sphere, measure):
    sphere[3, 4] = np.nan
    sphere[5, 6] = np.inf
    with pytest.raises(InvalidInput, match="expected finite embeddings, got 2 values"):
        measure(sphere)


@pytest.mark.parametrize(
    ("measure", "shape", "message"),
    [
        (uniformity, (1, 4), r"n at least 2, got \(1, 4\)"),
        (effective_rank, (0, 4), r"n at least 1, got \(0, 4\)"),
        (embedding_std, (4,), r"got \(4,\)"),
        (effective_rank, (4, 0), r"got \(4, 0\)"),
    ],
)
def test_sets_without_enough_images_are_refused(measure, shape, message):
    with pytest.raises(InvalidInput, match=message):
        measure(np.zeros(shape))


def test_views_of_different_shape_are_refused(sphere):
    with pytest.raises(InvalidInput, match=r"same shape, got \(400, 16\) and \(399, 16\)"):
        alignment(sphere, sphere[1:])
