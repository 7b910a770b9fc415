"""Boundary attack: a random walk along the decision boundary, by decisions alone."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Found, Need, Problem, attacks
from embedkit.evaluate.measurement.victim.asking.boundary import (
    Point,
    ask,
    bisected,
    length,
    random_start,
)
from embedkit.evaluate.measurement.victim.asking.lanes import Solo, each_alone

__all__ = ["Boundary", "nearer", "on_sphere"]

_ADAPTATION = 1.5
# As the published code: how many outcomes are looked at, and how often the sphere is asked.
_SPHERE_OUTCOMES, _SOURCE_OUTCOMES, _SPHERE_EVERY = 100, 30, 10


@attacks.register("boundary")
@dataclass(frozen=True)
class Boundary:
    """Boundary attack (Brendel 2018): step along the sphere around the image, then towards it.

    From noise that fools the victim, brought to the boundary by bisection. Both steps are
    shares of the distance: that on the sphere shrinks if fewer than a fifth of such points
    fool and grows if more than half do; that towards the image likewise at a tenth and a
    quarter. The walk is in points that need not be whole, every query is rounded to 8 bits. It
    stops inside the threat.

    Attributes:
        queries: Queries per image; the threat's limit caps them.
        sphere_step: First step along the sphere, as a share of the distance.
        source_step: First step towards the image, as a share of the distance.
        tries: Noise images asked about until one fools the victim.

    Raises:
        InvalidInput: If a setting is out of range.
    """

    queries: int = 1000
    sphere_step: float = 0.01
    source_step: float = 0.01
    tries: int = 100

    needs: ClassVar[frozenset[Need]] = frozenset({"decisions"})
    norms: ClassVar[frozenset[str]] = frozenset({"l2"})

    def __post_init__(self) -> None:
        if self.queries < 1 or self.tries < 1:
            raise InvalidInput(
                f"expected queries and tries >= 1, got {self.queries}, {self.tries}"
            )
        if not 0 < self.sphere_step < 1 or not 0 < self.source_step < 1:
            raise InvalidInput(
                "expected sphere_step and source_step in (0, 1), got "
                f"{self.sphere_step}, {self.source_step}"
            )

    def run(self, problem: Problem) -> Found:
        """Walk towards each image until inside the threat, or until the queries are used."""
        if problem.oracle is None:
            raise InvalidInput("expected an oracle that answers with decisions, got none")

        def solo(index: int, left: Callable[[], int]) -> Solo:
            del left  # one query at a time: it is stopped from outside
            rng = np.random.default_rng(problem.keys[index])
            return self._walk(problem.images[index].astype(np.float64), rng)

        each_alone(problem.oracle, len(problem.images), self.queries, solo)
        return Found(problem.oracle.best.astype(np.float32))

    def _walk(self, original: Point, rng: np.random.Generator) -> Solo:
        outside = yield from random_start(original.shape, rng, self.tries)
        if outside is None:
            return
        point = yield from bisected(original, outside, "l2", 1.0)
        along, towards = self.sphere_step, self.source_step
        sphere: deque[bool] = deque(maxlen=_SPHERE_OUTCOMES)
        source: deque[bool] = deque(maxlen=_SOURCE_OUTCOMES)
        number = 0
        # Shorter steps than this change no pixel: another walk from here finds nothing.
        while towards > 1e-7:
            on = on_sphere(original, point, along, rng)
            if number % _SPHERE_EVERY == 0:
                sphere.append((yield from ask(on)))
            closer = nearer(original, point, on, towards)
            fooled = yield from ask(closer)
            if number % _SPHERE_EVERY == 0:
                source.append(fooled)
            if fooled:
                point = closer
            if len(sphere) == _SPHERE_OUTCOMES // _SPHERE_EVERY:
                change = _change(sphere, 0.2, 0.5)
                along, towards = along * change, towards * change
            if len(source) == _SOURCE_OUTCOMES // _SPHERE_EVERY:
                towards *= _change(source, 0.1, 0.25)
            number += 1


def _change(outcomes: deque[bool], few: float, many: float) -> float:
    """By what to multiply a step; outcomes that led to a change are forgotten."""
    share = sum(outcomes) / len(outcomes)
    if few <= share <= many:
        return 1.0
    outcomes.clear()
    return _ADAPTATION if share > many else 1 / _ADAPTATION


def on_sphere(original: Point, point: Point, step: float, rng: np.random.Generator) -> Point:
    """Return a random point at the distance of ``point``, ``step`` times it away or less.

    Args:
        original: Centre of the sphere, (h, w, c).
        point: On the sphere.
        step: Length of the tangent, as a share of the radius; its end is drawn back onto the
            sphere, and the pixels into 0 to 255.
        rng: Draws the direction.
    """
    inward = original - point
    radius = length(inward, "l2")
    unit = inward / max(radius, 1e-12)
    tangent = rng.standard_normal(original.shape)
    tangent -= np.vdot(tangent, unit) * unit
    tangent *= step * radius / max(length(tangent, "l2"), 1e-12)
    on = original + (tangent - inward) / math.sqrt(1 + step**2)
    np.maximum(on, 0, out=on)
    return np.minimum(on, 255, out=on)


def nearer(original: Point, point: Point, on: Point, step: float) -> Point:
    """Return ``on`` moved towards the original, to ``1 - step`` of the old distance."""
    away = on - original
    goal = (1 - step) * length(point - original, "l2")
    return original + min(goal / max(length(away, "l2"), 1e-12), 1.0) * away
