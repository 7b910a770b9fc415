"""Keyed random numbers: uniform, repeatable, and blind to the batch."""

import numpy as np
from scipy.stats import kstest

from embedkit.perturb.randomness import keys_of, uniforms


def test_keys_depend_on_id_and_seed_alone():
    assert keys_of(("a", "b"), 0)[1] == keys_of(("b",), 0)[0]
    assert keys_of(("a",), 0) != keys_of(("a",), 1)
    assert keys_of((), 0).shape == (0,)
    # The separator keeps (1, "2a") apart from (12, "a").
    assert keys_of(("2a",), 1) != keys_of(("a",), 12)


def test_uniforms_are_uniform_and_keyed():
    keys = keys_of(tuple(map(str, range(200))), 0)
    draws = uniforms(keys, 5, 50)
    assert draws.shape == (200, 50)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert kstest(draws.ravel(), "uniform").pvalue > 0.01
    assert np.array_equal(uniforms(keys[7:9], 5, 50), draws[7:9])
    for other in (uniforms(keys, 6, 50), np.roll(draws, 1, axis=0), np.roll(draws, 1, axis=1)):
        assert abs(np.corrcoef(draws.ravel(), other.ravel())[0, 1]) < 0.04
