"""Threats: the ball holds after rounding, and rounding is as near as the ball allows."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import InvalidInput
from embedkit.evaluate.threat import Threat


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("l1", 8), "expected the norm 'linf', 'l2' or 'patch', got 'l1'"),
        (("linf", 0), "expected radius_255 > 0, got 0"),
        (("l2", float("nan")), "expected radius_255 > 0, got nan"),
        (("linf", 2.5), "expected a whole radius_255 for linf, got 2.5"),
        (("linf", 8, 0), "expected query_limit >= 1 or None, got 0"),
    ],
)
def test_impossible_threats_are_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        Threat(*arguments)


def test_distances_do_not_wrap_around():
    black = np.zeros((1, 2, 2, 1), np.uint8)
    other = np.array([[[[255], [3]], [[4], [0]]]], np.uint8)
    assert Threat("linf", 8).distances(other, black) == [255.0]
    other[0, 0, 0, 0] = 0
    assert Threat("l2", 8).distances(other, black) == [5.0]


def test_contains_sees_the_ball_and_the_range():
    white = np.full((3, 1, 1, 1), 255, np.uint8)
    pixels = np.array([250.0, 240.0, 256.0], np.float32).reshape(3, 1, 1, 1)
    assert Threat("linf", 8).contains(pixels, white).tolist() == [True, False, False]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    norm=st.sampled_from(["linf", "l2"]),
    radius=st.integers(1, 60),
    spread=st.floats(0.1, 400),
)
def test_rounded_images_stay_inside(seed, norm, radius, spread):
    rng = np.random.default_rng(seed)
    originals = rng.integers(0, 256, (3, 4, 3, 2), dtype=np.uint8)
    noise = spread * rng.standard_normal(originals.shape)
    candidates = (originals + noise).astype(np.float32)
    threat = Threat(norm, radius)
    rounded = threat.quantise(candidates, originals)
    assert rounded.dtype == np.uint8
    delta = rounded.astype(int) - originals
    size = np.abs(delta).max() if norm == "linf" else (delta**2).reshape(3, -1).sum(1).max()
    assert size <= (radius if norm == "linf" else radius**2)
    assert threat.contains(threat.project(candidates, originals), originals).all()


def test_rounding_is_exact_inside_the_ball():
    originals = np.full((1, 1, 3, 1), 100, np.uint8)
    candidates = np.array([100.4, 97.6, 103.5], np.float32).reshape(originals.shape)
    rounded = Threat("linf", 8).quantise(candidates, originals)
    assert rounded.ravel().tolist() == [100, 98, 104]


def test_l2_rounding_is_near_the_best_lattice_point():
    """The closest 8-bit image in the ball, by enumeration, is at most a little closer."""
    rng = np.random.default_rng(0)
    originals = np.full((20, 1, 4, 1), 100, np.uint8)
    direction = rng.standard_normal(originals.shape)
    direction /= np.linalg.norm(direction, axis=2, keepdims=True)
    threat = Threat("l2", 6.3)
    exact = 6.3 * direction
    rounded = threat.quantise((originals + exact).astype(np.float32), originals)
    lattice = np.array(list(itertools.product(range(-7, 8), repeat=4)))
    lattice = lattice[(lattice**2).sum(axis=1) <= 6.3**2]
    moves = rounded.astype(int).reshape(20, 4) - 100
    for e, r in zip(exact.reshape(20, 4), moves, strict=True):
        nearest = np.sqrt(((lattice - e) ** 2).sum(axis=1).min())
        assert np.linalg.norm(r - e) <= nearest + 0.35


def test_candidates_that_are_not_numbers_fall_back_to_the_original():
    originals = np.full((1, 1, 2, 1), 50, np.uint8)
    candidates = np.array([np.nan, np.inf], np.float32).reshape(originals.shape)
    assert Threat("linf", 4).quantise(candidates, originals).ravel().tolist() == [50, 54]


def test_no_images_are_fine():
    none = np.zeros((0, 2, 2, 1), np.uint8)
    assert Threat("l2", 4).quantise(none.astype(np.float32), none).shape == (0, 2, 2, 1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), radius=st.sampled_from([1, 7, 128, 255, 400]))
def test_linf_is_the_clip_of_its_definition(seed, radius):
    """In double precision: into the ball, into the range, changes rounded half to even."""
    rng = np.random.default_rng(seed)
    originals = rng.integers(0, 256, (4, 3, 3, 2), dtype=np.uint8)
    candidates = (originals + radius * rng.standard_normal(originals.shape)).astype(np.float32)
    candidates.ravel()[::7] = originals.ravel()[::7] + np.float32(0.5)
    candidates.ravel()[:3] = [np.nan, np.inf, -np.inf]
    centre = originals.astype(np.float64)
    moved = np.where(np.isnan(candidates), centre, candidates.astype(np.float64))
    exact = np.clip(centre + np.clip(moved - centre, -radius, radius), 0, 255)
    threat = Threat("linf", radius)
    projected = threat.project(candidates, originals)
    assert projected.dtype == np.float32
    np.testing.assert_array_equal(projected, exact.astype(np.float32))
    rounded = centre + np.rint(exact.astype(np.float32) - centre)
    np.testing.assert_array_equal(threat.quantise(candidates, originals), rounded)
