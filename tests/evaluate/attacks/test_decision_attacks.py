"""HopSkipJump, RayS, boundary and Bayesian optimisation where the answer is known."""

import numpy as np
import pytest
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import run_attack
from embedkit.evaluate.attacks.bayes_opt import BayesOpt, farthest_points, rotation
from embedkit.evaluate.attacks.boundary import Boundary, nearer, on_sphere
from embedkit.evaluate.attacks.hop_skip_jump import HopSkipJump, boundary_normal
from embedkit.evaluate.attacks.rays import RayS, along_ray, blocks
from embedkit.evaluate.measurement.victim.asking.boundary import bisected, length
from embedkit.evaluate.threat import Threat
from tests.evaluate.attacks.linear import exact_distances, plane_target


def answered(search, fooled):
    """Run a search about one image; returns its result and the images it asked about."""
    asked = []
    try:
        images = next(search)
        while True:
            asked.append(images)
            images = search.send(fooled(images))
    except StopIteration as end:
        return end.value, np.concatenate(asked)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("tolerance", [1.0, 4.0])
def test_a_bisection_ends_within_its_tolerance(rng, norm, tolerance):
    """The path from grey 100 to 200 crosses at a known length; every value moves alike."""
    original, outside = np.full((4, 4, 1), 100.0), np.full((4, 4, 1), 200.0)
    crossing = 137.0

    def fooled(images):
        return images.reshape(len(images), -1)[:, 0] >= crossing

    found, asked = answered(bisected(original, outside, norm, tolerance), fooled)
    unit = 1.0 if norm == "linf" else 4.0
    exact = unit * (crossing - 100)
    # Rounding to 8 bits moves the crossing by half a level of each value.
    assert exact - 0.5 * unit <= length(found - original, norm) <= exact + tolerance
    whole = unit * 100
    assert len(asked) == int(np.ceil(np.log2(whole / tolerance)))


def test_the_normal_is_unbiased_on_a_plane(rng):
    target = plane_target(rng, count=1)
    point = np.full((8, 8, 1), 128.0)
    fooled = lambda images: target.victim.embed(images)[:, 0] <= 0  # noqa: E731
    normal, _ = answered(boundary_normal(point, 20_000, 0.35, rng), fooled)
    assert float(-normal.ravel() @ target.victim.normal) > 0.97
    few, _ = answered(boundary_normal(point, 200, 0.35, rng), fooled)
    assert 0.5 < float(-few.ravel() @ target.victim.normal) < 0.97


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hop_skip_jump_reaches_the_nearest_point_of_a_plane(rng, norm):
    target = plane_target(rng, count=4)
    exact = exact_distances(target, norm)
    outcome = run_attack(HopSkipJump(queries=3000), target, Threat(norm, 1, 3000))
    assert (outcome.nearest >= 0.99 * exact).all()
    # Linf moves every value by whole levels: a wrong sign costs as much as a right one gains.
    assert np.median(outcome.nearest / exact) < {"linf": 1.5, "l2": 1.1}[norm]


def test_rays_reaches_the_nearest_corner_of_a_plane(rng):
    target = plane_target(rng, count=4)
    exact = np.ceil(exact_distances(target, "linf"))
    outcome = run_attack(RayS(queries=1500), target, Threat("linf", 1, 1500))
    assert (outcome.nearest >= exact).all()
    assert (outcome.nearest <= exact + 2).all()


def test_blocks_are_halved_down_to_single_values_and_begin_again():
    sizes = [int(mask.sum()) for mask, _ in zip(blocks((2, 2, 2)), range(17), strict=False)]
    assert sizes == [8, 4, 4, *[2] * 4, *[1] * 8, 8, 4]
    first = next(m for i, m in enumerate(blocks((2, 3, 2))) if i == 1)
    assert first[..., 0].all() and not first[..., 1].any()  # noqa: PT018


def test_a_fraction_of_a_level_moves_that_share_of_the_values(rng):
    original = np.full((50, 50, 1), 100.0)
    signs = rng.choice([-1.0, 1.0], original.shape)
    moved = signs * (along_ray(original, signs, 7.3, rng.random(original.shape)) - 100)
    assert set(np.unique(moved)) == {7, 8}
    assert abs(moved.mean() - 7.3) < 0.05


def test_boundary_walks_towards_the_plane(rng):
    target = plane_target(rng, count=3)
    exact = exact_distances(target, "l2")
    threat = Threat("l2", 1, 1500)
    short = run_attack(Boundary(queries=100), target, threat).nearest
    long = run_attack(Boundary(queries=1500), target, threat).nearest
    assert (long >= 0.99 * exact).all()
    # A random walk: it has closed a third of what was too far, and more with time.
    assert np.median(long - exact) < 0.7 * np.median(short - exact)


def test_a_step_on_the_sphere_keeps_the_distance(rng):
    original, point = np.full((5, 5, 1), 128.0), 128 + rng.normal(0, 10, (5, 5, 1))
    on = on_sphere(original, point, 0.1, rng)
    radius = np.linalg.norm(point - original)
    assert np.linalg.norm(on - original) == pytest.approx(radius)
    # The chord of a tangent of a tenth of the radius, drawn back onto the sphere.
    angle = np.arctan(0.1)
    assert np.linalg.norm(on - point) == pytest.approx(2 * radius * np.sin(angle / 2))
    assert np.linalg.norm(nearer(original, point, on, 0.2) - original) == pytest.approx(
        0.8 * radius
    )


def test_each_point_has_the_largest_expected_improvement_by_scikit_learns_process():
    """All answers so far are -1, as before the first success."""
    starts, candidates = 3, 50
    points = np.array(list(farthest_points(6, 15, starts, candidates)))
    rng = np.random.default_rng(0)
    process = GaussianProcessRegressor(
        Matern(length_scale=np.sqrt(2), nu=2.5), alpha=1e-6, optimizer=None
    )
    for size, point in enumerate(points):
        drawn = rng.standard_normal((candidates if size >= starts else 1, 6))
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        chosen = 0
        if size >= starts:
            process.fit(points[:size], np.full(size, -1.0) - -1.0)
            mean, deviation = process.predict(drawn, return_std=True)
            z = mean / deviation  # the best so far is -1, and so is the prior mean
            improvement = deviation * (z * stats.norm.cdf(z) + stats.norm.pdf(z))
            chosen = int(improvement.argmax())
        np.testing.assert_array_equal(point, drawn[chosen])


def test_rotations_keep_distances_and_favour_no_direction():
    turned = np.array([rotation(3, key) for key in range(4000)])
    np.testing.assert_allclose(
        turned @ turned.transpose(0, 2, 1), [np.eye(3)] * 4000, atol=1e-12
    )
    # Uniform on the orthogonal group: entries have mean 0 and variance 1/d.
    np.testing.assert_allclose(turned.mean(axis=0), 0, atol=5 * np.sqrt(1 / 3 / 4000))
    np.testing.assert_allclose(turned.var(axis=0), 1 / 3, atol=0.03)


def test_bayes_opt_finds_a_half_space_of_low_frequencies(rng):
    """A plane whose normal is the mean: half of all directions cross it, so few queries do."""
    target = plane_target(rng, count=6)
    target.victim.normal[:] = np.full(64, 1 / 8)
    target.victim.offset = -8.0 * 128 + 5
    images = np.full_like(target.images, 128)
    target = type(target)(target.victim, target.head, images, target.ids)
    outcome = run_attack(BayesOpt(), target, Threat("l2", 40, 100))
    assert outcome.success.all()
    assert np.median(outcome.queries) < 20


@pytest.mark.parametrize(
    "make",
    [
        lambda: HopSkipJump(first_probes=1),
        lambda: HopSkipJump(tolerance_255=0),
        lambda: RayS(tolerance_255=0),
        lambda: Boundary(sphere_step=1),
        lambda: Boundary(tries=0),
        lambda: BayesOpt(candidates=0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InvalidInput, match="expected"):
        make()
