"""Certificates against closed forms: a half-space and a linear map."""

import math

import numpy as np
import pytest
from scipy.stats import beta, norm

from embedkit.errors import InvalidInput
from embedkit.evaluate.measurement.changed.smoothing import (
    ABSTAINED,
    Ball,
    certify_decision,
    certify_output,
    enclosing_ball,
    lower_bound,
    noisy,
)

ALPHA = 0.001


@pytest.mark.parametrize(("hits", "n"), [(1, 10), (250, 500), (499, 500), (500, 500)])
def test_lower_bound_is_the_beta_quantile_of_clopper_and_pearson(hits, n):
    assert lower_bound(hits, n, ALPHA) == pytest.approx(beta.ppf(ALPHA, hits, n - hits + 1))


def test_lower_bound_of_none_is_zero_and_of_impossible_counts_an_error():
    assert lower_bound(0, 10, ALPHA) == 0
    with pytest.raises(InvalidInput, match="got 11 of 10"):
        lower_bound(11, 10, ALPHA)


def test_radius_is_sigma_times_the_normal_quantile_of_the_bound():
    selected = np.array([2, 2, 0])
    estimated = np.array([2] * 490 + [0] * 10)
    found = certify_decision(selected, estimated, 32.0, ALPHA)
    assert (found.label, found.hits) == (2, 490)
    assert found.radius_255 == pytest.approx(32 * norm.ppf(beta.ppf(ALPHA, 490, 11)))


def test_abstains_when_the_leader_of_the_first_draw_is_not_sure_of_the_majority():
    even = np.array([0, 1] * 100)
    assert certify_decision(even, even, 32.0, ALPHA).label == ABSTAINED
    # The first draw chooses: a class that only the second one likes is not taken.
    other = certify_decision(np.zeros(5, np.int64), np.ones(100, np.int64), 32.0, ALPHA)
    assert (other.label, other.radius_255) == (ABSTAINED, 0.0)


def test_radius_of_a_half_space_is_never_above_the_true_distance_but_near_it(rng):
    # The class is whether w.x > 0: the smoothed class changes exactly at the plane.
    w = rng.standard_normal(20)
    w /= np.linalg.norm(w)
    x, sigma, distance = 40 * w, 32.0, 40.0
    wrong, found = 0, []
    for _ in range(200):
        draws = x + sigma * rng.standard_normal((1100, 20))
        labels = (draws @ w > 0).astype(np.int64)
        certificate = certify_decision(labels[:100], labels[100:], sigma, 0.01)
        found.append(certificate.radius_255)
        wrong += certificate.radius_255 > distance
    # At most 1 % may be wrong: 8 of 200 or more has probability below 0.001.
    assert wrong < 8
    assert 0.85 * distance < np.median(found) < distance


def test_enclosing_ball_is_the_sample_with_the_smallest_median_distance(rng):
    samples = rng.standard_normal((41, 3)).astype(np.float32)
    ball = enclosing_ball(samples)
    distances = np.linalg.norm(samples[:, None] - samples[None].astype(np.float64), axis=2)
    medians = np.median(distances, axis=1)
    assert ball.radius == pytest.approx(medians.min())
    np.testing.assert_allclose(ball.centre, samples[medians.argmin()])


def test_output_bound_is_the_formula_of_the_paper(rng):
    n, selected, sigma, radius = 2000, 1000, 20.0, 10.0
    distances = rng.random(n)
    ball = Ball(np.zeros(2), 0.5)
    (found,) = certify_output(
        ball, distances, selected=selected, sigma_255=sigma, radii_255=(radius,), alpha=0.01
    )
    delta = math.sqrt(math.log(2 / 0.005) / (2 * selected)) + 1 / math.sqrt(selected)
    q = norm.cdf(norm.ppf(0.5 + delta) + radius / sigma) + math.sqrt(
        math.log(1 / 0.005) / (2 * n)
    )
    assert found == 3 * np.sort(distances)[math.ceil(q * n) - 1]
    assert found == pytest.approx(3 * np.quantile(distances, q), rel=1e-2)


def test_output_is_refused_without_a_centre_and_unbounded_with_too_few_samples():
    options = {"sigma_255": 20.0, "radii_255": (5.0, 500.0), "alpha": 0.01}
    near = np.zeros(500)
    bounds = certify_output(Ball(np.zeros(2), 0.1), near, selected=500, **options)
    assert bounds == (0.0, math.inf)
    assert certify_output(Ball(np.zeros(2), 0.1), near + 1, selected=500, **options) is None
    assert certify_output(Ball(np.zeros(2), 0.1), near[:9], selected=9, **options) is None


def test_output_bound_holds_for_a_linear_map(rng):
    # f(x) = A x: the centre of A (x + e) is A x, and it moves by |A d|, at most |A| |d|.
    a = rng.standard_normal((4, 10))
    norm_of_a, sigma, radius = np.linalg.norm(a, 2), 20.0, 5.0
    direction = np.linalg.svd(a)[2][0] * radius
    x = 100 * rng.standard_normal(10)

    def centre(point):
        first, second = (
            (point + sigma * rng.standard_normal((400, 10))) @ a.T for _ in range(2)
        )
        ball = enclosing_ball(first)
        return ball, certify_output(
            ball,
            ball.distances(second),
            selected=400,
            sigma_255=sigma,
            radii_255=(radius,),
            alpha=0.01,
        )

    for _ in range(20):
        here, bound = centre(x)
        there, _ = centre(x + direction)
        if bound is not None:
            assert np.linalg.norm(here.centre - there.centre) <= bound[0]
            assert bound[0] >= norm_of_a * radius


def test_noise_is_normal_then_clipped_and_rounded(rng):
    image = np.full((30, 30, 1), 128, np.uint8)
    made = noisy(image, 10.0, 40, rng)
    assert made.dtype == np.uint8
    assert made.shape == (40, 30, 30, 1)
    assert made.mean() == pytest.approx(128, abs=0.3)
    # Rounding adds a variance of 1/12.
    assert made.std() == pytest.approx(math.sqrt(100 + 1 / 12), rel=0.02)
    dark = noisy(np.zeros((30, 30, 1), np.uint8), 10.0, 4, rng)
    assert (dark == 0).mean() == pytest.approx(norm.cdf(0.05), abs=0.03)
