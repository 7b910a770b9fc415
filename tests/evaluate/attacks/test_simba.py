"""SimBA against a transcription of the paper's algorithm 1, and its bases."""

import numpy as np
import pytest
from scipy.fft import idctn

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import run_attack
from embedkit.evaluate.attacks.simba import SimBA, directions, order_of
from embedkit.evaluate.threat import Threat
from embedkit.perturb.randomness import keys_of
from tests.evaluate.attacks.linear import plane_target


def test_a_cosine_is_scipys():
    shape = (6, 5, 2)
    for place in (0, 1, 17, 59):
        weights = np.zeros(shape)
        weights.flat[place] = 1
        expected = idctn(weights, axes=(0, 1), norm="ortho")
        made = directions(np.array([place]), shape, "dct")[0]
        np.testing.assert_allclose(made, expected, atol=1e-6)


def test_each_basis_is_orthonormal():
    for basis in ("pixel", "dct"):
        vectors = directions(np.arange(60), (6, 5, 2), basis).reshape(60, -1)
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(60), atol=1e-6)


def test_every_direction_is_tried_once_before_any_again():
    orders = order_of(keys_of(("a", "b"), 0), 0, np.arange(10, 30))
    assert (np.sort(orders, axis=1) == np.arange(10, 30)).all()
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_a_run_equals_its_transcription(rng, basis):
    target = plane_target(rng, count=3)
    method = SimBA(queries=41, basis=basis, step_255=20.0, frequencies=1.0)
    threat = Threat("l2", 55, 41)
    outcome = run_attack(method, target, threat)
    for index, original in enumerate(target.images):

        def score(image):
            return float(target.victim.embed(image[None])[0, 0])

        order = order_of(keys_of((target.ids[index],), 0), 0, np.arange(64))[0]
        changed = original.astype(np.float32)
        margin, asked, step = score(original), 1, 0
        while margin > 0 and asked < 41:
            vector = directions(order[step : step + 1], (8, 8, 1), basis)[0]
            for sign in (-1, 1):
                if asked == 41:
                    break
                tried = threat.project((changed + sign * 20 * vector)[None], original[None])
                value = score(threat.quantise(tried, original[None])[0])
                asked += 1
                if value < margin:
                    changed, margin = tried[0], value
                    break
            step += 1
        assert outcome.queries[index] == asked
        expected = threat.quantise(changed[None], original[None])[0]
        assert np.array_equal(outcome.adversarial[index], expected)


def test_on_a_plane_the_whole_basis_reaches_the_corner(rng):
    """With a step as large as the ball each value ends on the side that lowers the score."""
    target = plane_target(rng, count=2, side=4, distance=100)
    outcome = run_attack(SimBA(200, "pixel"), target, Threat("linf", 6, 200))
    delta = outcome.adversarial.astype(int) - target.images
    expected = -6 * np.sign(target.victim.normal).reshape(1, 4, 4, 1)
    assert np.array_equal(delta, np.broadcast_to(expected, delta.shape))


@pytest.mark.parametrize("settings", [{"queries": 0}, {"frequencies": 0}, {"basis": "wave"}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match="expected"):
        SimBA(**settings)
