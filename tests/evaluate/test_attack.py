"""The final caller: no method, however wrong or dishonest, gets a false success past it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Target, run_attack
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.outcome import worst_of
from embedkit.evaluate.threat import Threat

RADIUS = Threat("linf", 8)


class BrightnessEmbedder:
    """Dark images on one axis, bright ones on the other; the boundary is a mean of 128."""

    dim = 2
    digest = "sha256:brightness"

    def embed(self, images):
        bright = images.reshape(len(images), -1).mean(axis=1) >= 128
        return np.stack([~bright, bright], axis=1).astype(np.float32)


def make_target(levels):
    """Images of one grey level each, all of class 0 (dark)."""
    images = np.zeros((len(levels), 2, 2, 1), np.uint8) + np.array(levels, np.uint8).reshape(
        -1, 1, 1, 1
    )
    head = KnnHead(np.eye(2, dtype=np.float32), np.array([0, 1]), np.zeros(len(levels), int), 1)
    return Target(BrightnessEmbedder(), head, images, tuple(map(str, range(len(levels)))))


@dataclass(frozen=True)
class Adds:
    """Adds grey levels without asking anybody."""

    levels: float

    needs: ClassVar[frozenset[Need]] = frozenset()
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})

    def run(self, problem):
        return Found(problem.images.astype(np.float32) + np.float32(self.levels))


@dataclass(frozen=True)
class Insatiable:
    """Makes one image brighter per query and never stops."""

    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    norms: ClassVar[frozenset[str]] = frozenset({"linf"})

    def run(self, problem):
        tried = problem.images.copy()
        while True:
            tried = tried + np.uint8(1)
            problem.oracle.margins(tried, np.arange(len(tried)))


def test_success_is_the_answer_of_the_victim():
    outcome = run_attack(Adds(5), make_target([100, 121, 122, 125]), RADIUS)
    # 122 + 5 is still dark; only 125 + 5 crosses 128.
    assert outcome.success.tolist() == [False, False, False, True]
    assert outcome.distances.tolist() == [5.0] * 4
    assert outcome.adversarial[3].ravel().tolist() == [130] * 4


def test_candidates_outside_the_ball_are_brought_back_before_they_count():
    outcome = run_attack(Adds(100), make_target([100, 119, 120]), RADIUS)
    assert outcome.success.tolist() == [False, False, True]
    assert outcome.distances.max() == 8


def test_rounding_happens_before_success_counts():
    """A candidate that is bright by half a level is dark once it is 8 bits."""
    outcome = run_attack(Adds(0.4), make_target([127]), RADIUS)
    assert outcome.candidates.max() == np.float32(127.4)
    assert outcome.adversarial.max() == 127
    assert not outcome.success.any()


def test_pixels_do_not_wrap_at_the_ends_of_the_range():
    outcome = run_attack(Adds(-20), make_target([3]), RADIUS)
    assert outcome.adversarial.ravel().tolist() == [0] * 4


def test_a_cut_off_method_keeps_the_best_image_it_asked_about():
    threat = replace(RADIUS, query_limit=6)
    outcome = run_attack(Insatiable(), make_target([100, 123]), threat)
    assert outcome.exhausted
    assert outcome.queries.tolist() == [6, 6]
    assert outcome.usage.images == 12
    assert outcome.usage.calls == 6
    assert outcome.success.tolist() == [False, True]
    assert outcome.adversarial[1].max() >= 128


def test_queries_outside_the_ball_win_nothing():
    threat = replace(RADIUS, query_limit=40)
    outcome = run_attack(Insatiable(), make_target([100]), threat)
    # The oracle saw bright images at 28 levels and more; the ball ends at 8.
    assert outcome.queries.tolist() == [40]
    assert not outcome.success.any()
    assert outcome.distances.max() <= 8


def test_a_method_without_needs_gets_neither_oracle_nor_surrogate():
    seen = []

    class Looks(Adds):
        def run(self, problem):
            seen.append((problem.oracle, problem.surrogate))
            return super().run(problem)

    run_attack(Looks(1), make_target([1]), RADIUS)
    assert seen == [(None, None)]


def test_a_gradient_method_without_a_surrogate_is_refused():
    class Climbs(Adds):
        needs: ClassVar[frozenset[Need]] = frozenset({"gradient"})

    with pytest.raises(InvalidInput, match="expected a surrogate, because Climbs needs"):
        run_attack(Climbs(1), make_target([1]), RADIUS)


def test_a_norm_that_the_method_does_not_know_is_refused():
    with pytest.raises(InvalidInput, match=r"expected a norm of \['linf'\] for Insatiable"):
        run_attack(Insatiable(), make_target([1]), Threat("l2", 8))


def test_candidates_of_another_shape_are_refused():
    class Drops(Adds):
        def run(self, problem):
            return Found(problem.images[:1].astype(np.float32))

    with pytest.raises(InvalidInput, match="expected candidates"):
        run_attack(Drops(1), make_target([1, 2]), RADIUS)


def test_targets_are_checked():
    good = make_target([1, 2])
    with pytest.raises(InvalidInput, match="expected one id per image, got 1 for 2"):
        replace(good, ids=("a",))
    with pytest.raises(InvalidInput, match="expected uint8 images"):
        replace(good, images=good.images.astype(np.float32))


def test_an_attack_on_nothing_is_refused():
    with pytest.raises(InvalidInput, match="n >= 1"):
        make_target([])


def test_the_worst_of_two_takes_each_images_success():
    target = make_target([125, 125, 60])
    first, second = (run_attack(Adds(levels), target, RADIUS) for levels in (2, 5))
    both = worst_of(first, second)
    assert both.success.tolist() == [True, True, False]
    assert both.adversarial[:, 0, 0, 0].tolist() == [130, 130, 62]
    assert both.distances.tolist() == [5, 5, 2]
    swapped = worst_of(second, first)
    assert swapped.adversarial[:, 0, 0, 0].tolist() == [130, 130, 65]


def test_the_worst_of_two_adds_their_queries():
    threat = replace(RADIUS, query_limit=3)
    first, second = (run_attack(Insatiable(), make_target([100]), threat) for _ in range(2))
    both = worst_of(first, second)
    assert both.queries.tolist() == [6]
    assert (both.usage.images, both.usage.calls) == (6, 6)
    assert both.exhausted
    assert both.gradient_norms is None
