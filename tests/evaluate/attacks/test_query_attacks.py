"""What all attacks by queries have in common: budgets, order, lanes, honest accounts."""

import numpy as np
import pytest

from embedkit.evaluate.attack import attacks, run_attack
from embedkit.evaluate.threat import Threat
from tests.evaluate.attacks.linear import part_of, plane_target

NAMES = ("bayes_opt", "boundary", "hop_skip_jump", "nes", "rays", "simba", "square")


@pytest.fixture(params=NAMES)
def method(request):
    # On 8 x 8 pixels a quarter of the frequencies is next to nothing.
    settings = {"frequencies": 1.0} if request.param == "simba" else {}
    return attacks.get(request.param)(**settings)


def norm_of(method):
    return "l2" if "l2" in method.norms else "linf"


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_the_budget_is_hard_by_the_victims_own_count(rng, method, limit):
    target = plane_target(rng)
    before = sum(target.victim.asked)
    outcome = run_attack(method, target, Threat(norm_of(method), 2, limit))
    sent = sum(target.victim.asked) - before - len(target.images)  # the final check
    assert sent == outcome.usage.images == outcome.queries.sum()
    assert outcome.queries.max() <= limit
    assert (outcome.queries_needed <= outcome.queries).all()


def test_results_depend_neither_on_the_batch_nor_on_the_order(rng, method):
    target = plane_target(rng)
    threat = Threat(norm_of(method), 40, 60)
    rows = np.array([4, 0, 3])
    whole, part = (
        run_attack(method, target, threat),
        run_attack(method, part_of(target, rows), threat),
    )
    assert np.array_equal(part.adversarial, whole.adversarial[rows])
    assert np.array_equal(part.queries, whole.queries[rows])
    assert np.array_equal(part.nearest, whole.nearest[rows])


def test_lanes_change_nothing_but_the_calls(rng, method):
    """130 images are asked about in four lanes; four of them alone in one."""
    target = plane_target(rng, count=130, side=4)
    threat = Threat(norm_of(method), 20, 30)
    rows = np.array([129, 64, 65, 3])
    whole, part = (
        run_attack(method, target, threat),
        run_attack(method, part_of(target, rows), threat),
    )
    assert np.array_equal(part.adversarial, whole.adversarial[rows])
    assert np.array_equal(part.queries, whole.queries[rows])


def test_the_oracle_accounts_for_what_was_found(rng, method):
    outcome = run_attack(method, plane_target(rng), Threat(norm_of(method), 250, 100))
    assert outcome.success.any()
    assert (outcome.queries_needed[outcome.success] >= 1).all()
    assert (outcome.nearest[outcome.success] <= 250).all()


def test_images_are_asked_about_together(rng, method):
    target = plane_target(rng, count=20)
    outcome = run_attack(method, target, Threat(norm_of(method), 1, 50))
    asked = outcome.usage.images + outcome.usage.cache_hits
    assert outcome.usage.calls < 0.2 * asked
