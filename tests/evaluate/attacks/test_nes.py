"""NES: the estimator against its expectation, and the descent on a plane."""

import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import run_attack
from embedkit.evaluate.attacks.nes import NES, estimated
from embedkit.evaluate.threat import Threat
from tests.evaluate.attacks.linear import exact_distances, plane_target


def test_the_estimator_is_the_papers_sum(rng):
    probes = rng.standard_normal((2, 3, 2, 2, 1)).astype(np.float32)
    plus, minus = rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
    expected = np.zeros((2, 2, 2, 1))
    for image in range(2):
        for pair in range(3):
            difference = plus[image, pair] - minus[image, pair]
            expected[image] += difference * probes[image, pair] / (2 * 1.5 * 3)
    np.testing.assert_allclose(estimated(plus, minus, probes, 1.5), expected, rtol=1e-5)


def test_the_estimator_is_unbiased_where_the_gradient_is_known(rng):
    """Of w . x, with probes rounded to 8 bits: its mean is w within the sampling error."""
    target = plane_target(rng, count=1, side=4, distance=10)
    count, deviation = 40_000, 2.0
    probes = rng.standard_normal((1, count, 4, 4, 1)).astype(np.float32)
    base = target.images[0].astype(np.float64)

    def scores(sign):
        moved = np.clip(np.rint(base + sign * deviation * probes[0]), 0, 255)
        return target.victim.embed(moved.astype(np.uint8))[:, 0].astype(np.float64)[None]

    found = estimated(scores(1), scores(-1), probes, deviation).ravel()
    # Var of one entry is (|w|^2 + w_i^2) / m <= 2 / m for a unit vector w.
    assert np.abs(found - target.victim.normal).max() < 4.5 * np.sqrt(2 / count)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_fools_at_little_more_than_the_exact_distance(rng, norm):
    target = plane_target(rng)
    exact = exact_distances(target, norm)
    near, far = np.floor(0.9 * exact.min()), np.ceil(1.25 * exact.max())
    assert not run_attack(NES(800), target, Threat(norm, near, 800)).success.any()
    assert run_attack(NES(800, pairs=20), target, Threat(norm, far, 800)).success.all()


@pytest.mark.parametrize("settings", [{"pairs": 0}, {"momentum": 1.0}, {"deviation_255": 0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match="expected"):
        NES(**settings)
