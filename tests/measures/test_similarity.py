import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.measures.similarity import linear_cka


def by_kernels(x, y):
    """Kornblith et al., equation 4: HSIC of the centred Gram matrices."""
    n = len(x)
    centre = np.eye(n) - 1 / n
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


def test_it_is_the_ratio_of_hsic(rng):
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 8))
    y[:, :3] += 2 * x[:, :3]
    found = linear_cka(x.astype(np.float32), y.astype(np.float32))
    assert found == pytest.approx(by_kernels(x, y), abs=1e-5)


def test_rotation_and_scale_do_not_matter(rng):
    x = rng.normal(size=(40, 6)).astype(np.float32)
    turned, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert linear_cka(x, (3 * x @ turned + 1).astype(np.float32)) == pytest.approx(1, abs=1e-5)


def test_a_constant_model_shares_nothing(rng):
    x = rng.normal(size=(40, 6)).astype(np.float32)
    assert linear_cka(x, np.full((40, 3), 0.35, np.float32)) == 0


def test_the_same_images_are_needed(rng):
    with pytest.raises(InvalidInput, match="same n >= 2"):
        linear_cka(np.ones((3, 2), np.float32), np.ones((4, 2), np.float32))
