import numpy as np
import pytest
from scipy.linalg import eigh

from embedkit.errors import InvalidInput
from embedkit.measures.spectrum import decay, eigenvalues, lidar, participation_ratio


def test_eigenvalues_are_those_of_the_covariance(rng):
    z = rng.normal(size=(50, 6)).astype(np.float32) @ np.diag([3, 2, 1, 1, 0.1, 0]).astype("f4")
    expected = np.linalg.eigvalsh(np.cov(z.astype(float), rowvar=False))[::-1]
    np.testing.assert_allclose(eigenvalues(z), expected, atol=1e-6)


def test_equal_embeddings_have_none(rng):
    z = np.tile(rng.normal(size=(1, 8)).astype(np.float32), (30, 1))
    spectrum = eigenvalues(z)
    assert spectrum.tolist() == [0] * 8
    assert participation_ratio(spectrum) == decay(spectrum) == 0


@pytest.mark.parametrize("equal", [1, 3, 7])
def test_participation_counts_equal_directions(equal):
    spectrum = np.array([2.5] * equal + [0.0] * 4)
    assert participation_ratio(spectrum) == pytest.approx(equal)


@pytest.mark.parametrize(("alpha", "size"), [(0.5, 128), (1.0, 128), (2.0, 20)])
def test_decay_finds_the_exponent(alpha, size):
    spectrum = 3.0 * np.arange(1, size + 1) ** -alpha
    assert decay(spectrum) == pytest.approx(alpha)


def test_lidar_is_the_rank_of_the_generalised_eigenvalues(rng):
    """Thilak et al., equations 1 to 3, with scipy's generalised solver."""
    n, q, d = 40, 5, 6
    views = rng.normal(size=(n, 1, d)) * [4, 3, 2, 1, 1, 1] + 0.3 * rng.normal(size=(n, q, d))
    means = views.mean(axis=1)
    between = np.cov(means, rowvar=False)
    within = sum(np.cov(v, rowvar=False) for v in views) / n + 1e-4 * np.eye(d)
    values = eigh(between, within, eigvals_only=True)
    p = values / values.sum() + 1e-7
    assert lidar(views.astype(np.float32)) == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), rel=1e-4
    )


def test_lidar_sees_only_what_survives_augmentation(rng):
    image = np.zeros((60, 1, 4))
    image[:, 0, :2] = rng.normal(size=(60, 2))
    noise = np.zeros((60, 8, 4))
    noise[:, :, 2:] = 5 * rng.normal(size=(60, 8, 2))
    assert lidar(image + noise) == pytest.approx(2, abs=0.15)
    assert lidar(np.ones((5, 2, 3))) == 0


def test_wrong_shapes_are_refused():
    with pytest.raises(InvalidInput, match="n at least 2"):
        eigenvalues(np.ones((1, 3), np.float32))
    with pytest.raises(InvalidInput, match="n and q >= 2"):
        lidar(np.ones((5, 1, 3)))
    with pytest.raises(InvalidInput, match="finite"):
        eigenvalues(np.full((3, 3), np.nan, np.float32))
