"""Signs of masked gradients and of weak attacks: each check with its finding, for the report.

An attack that fails proves nothing unless it would have succeeded on a weaker model.
The checks are those of Carlini et al. 2019, Athalye et al. 2018 and of AutoAttack.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from embedkit.evaluate.measurement.trial.attacking import Attacked, Runs, Trial
from embedkit.types import Scores

__all__ = ["Check", "Extra", "check_table", "sanity_checks"]

_LOST_IN_TRANSFER = 0.1
# Two searches of equal strength differ by a few images.
_SEARCH_LUCK = 0.03
_ALL = 0.99
_LITTLE_FOOLED = 0.05


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What should hold; something put it to the test.
        problems: A sentence for each place where it does not; none if it holds.
    """

    name: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Extra:
    """Runs that are made for the checks alone; None where one was not made.

    Attributes:
        white: Names of the attacks by gradient among the runs.
        flips: Share of clean images whose decision changed when the model was asked again.
        one_step: FGSM, under the threats of the linf runs.
        unbounded: A white-box attack that may change every pixel to anything.
        longer: Name of a white-box attack, its run, and one of twice the steps and new starts.
        disagreement: Share of clean attacked images that the twin decides otherwise.
    """

    white: frozenset[str] = frozenset()
    flips: float | None = None
    one_step: Runs | None = None
    unbounded: Attacked | None = None
    longer: tuple[str, Attacked, Attacked] | None = None
    disagreement: float | None = None

    @property
    def runs(self) -> tuple[Attacked, ...]:
        """Every run that was made for the checks alone."""
        longer = () if self.longer is None else (self.longer[2],)
        unbounded = () if self.unbounded is None else (self.unbounded,)
        return (*(self.one_step or {}).values(), *unbounded, *longer)


def sanity_checks(
    trial: Trial, runs: Mapping[str, Runs], noise: Runs, extra: Extra
) -> list[Check]:
    """Return every check that these runs put to the test.

    Args:
        trial: What was attacked.
        runs: Per attack, its results.
        noise: Those of random noise under the same threats.
        extra: Runs made for the checks alone.
    """
    white = {name: runs[name] for name in runs if name in extra.white}
    black = {name: run for name, run in runs.items() if name not in extra.white}
    one_step, unbounded, longer = extra.one_step, extra.unbounded, extra.longer
    possible: list[tuple[str, bool, Callable[[], tuple[str, ...]]]] = [
        (
            "attacked images are inside the threat",
            any(runs.values()),
            lambda: _outside({**runs, "noise": noise}),
        ),
        (
            "more freedom is not less successful",
            any(map(_steps, runs.values())),
            lambda: _weaker_with_more(runs),
        ),
        (
            "attacks fool more images than random noise",
            any(runs.values()),
            lambda: _below_noise(runs, noise),
        ),
        (
            "the model decides alike when asked again",
            extra.flips is not None,
            lambda: _random(extra.flips or 0.0),
        ),
        ("gradients are not zero", bool(_gradient_norms(white)), lambda: _masked(white)),
        (
            "success on the twin carries over to the server",
            any("twin" in run.stages for found in white.values() for run in found.values()),
            lambda: _lost(white),
        ),
        (
            "attacks by gradient are not weaker than by queries",
            bool(_threats(white) & _threats(black)),
            lambda: _reversed(white, black),
        ),
        (
            "the twin decides as the server does",
            bool(white) and extra.disagreement is not None,
            lambda: _other_model(extra.disagreement or 0.0),
        ),
        (
            "many steps are not weaker than one",
            bool(white) and bool(one_step),
            lambda: _one_step(white, one_step or {}),
        ),
        (
            "an unbounded attack fools every image",
            bool(white) and unbounded is not None,
            lambda: () if unbounded is None else _bounded(unbounded),
        ),
        (
            "more steps and other starts find no more",
            bool(white) and longer is not None,
            lambda: () if longer is None else _short(*longer),
        ),
    ]
    return [Check(name, problems()) for name, exercised, problems in possible if exercised]


def check_table(checks: Sequence[Check]) -> dict[str, object]:
    """Return the checks as a table for the report."""
    return {
        "kind": "table",
        "title": "Are the attacks strong enough?",
        "columns": ["check", "finding"],
        "rows": [[check.name, "; ".join(check.problems) or "passed"] for check in checks],
    }


def _success(run: Attacked) -> float:
    return float(run.outcome.success.mean())


def _threats(runs: Mapping[str, Runs]) -> set[str]:
    return {threat for outcomes in runs.values() for threat in outcomes}


def _steps(outcomes: Runs) -> list[tuple[Attacked, Attacked]]:
    """Each run with the next larger one of its norm."""
    return [
        (smaller, larger)
        for smaller, larger in pairwise(outcomes.values())
        if smaller.threat.norm == larger.threat.norm
    ]


def _outside(runs: Mapping[str, Runs]) -> tuple[str, ...]:
    return tuple(
        f"{name} left the ball of {run.threat.norm} {run.threat.size:g}: its results do not "
        "count"
        for name, outcomes in runs.items()
        for run in outcomes.values()
        if run.outcome.distances.max() > run.threat.size
    )


def _weaker_with_more(runs: Mapping[str, Runs]) -> tuple[str, ...]:
    found = []
    for name, outcomes in runs.items():
        for smaller, larger in _steps(outcomes):
            before, after = (int(r.outcome.success.sum()) for r in (smaller, larger))
            if after < before:
                found.append(
                    f"{name} fooled fewer images at {larger.threat.norm} "
                    f"{larger.threat.size:g} than at {smaller.threat.size:g}, {after} and "
                    f"{before}: the search is too short"
                )
    return tuple(found)


def _below_noise(runs: Mapping[str, Runs], noise: Runs) -> tuple[str, ...]:
    return tuple(
        f"{name} fooled fewer images than random noise at {run.threat.norm} {run.threat.size:g}"
        for name, outcomes in runs.items()
        for threat, run in outcomes.items()
        if _success(run) < _success(noise[threat])
    )


def _random(flips: float) -> tuple[str, ...]:
    if flips == 0:
        return ()
    return (
        f"{flips:.1%} of the decisions about clean images changed when asked again: the model "
        "is random or depends on its batch, so attacks need averages over several answers",
    )


def _gradient_norms(white: Mapping[str, Runs]) -> list[Scores]:
    norms = [r.outcome.gradient_norms for runs in white.values() for r in runs.values()]
    return [n for n in norms if n is not None]


def _masked(white: Mapping[str, Runs]) -> tuple[str, ...]:
    """White-box attacks on images without a gradient say nothing."""
    flat = max((int(np.count_nonzero(n == 0)) for n in _gradient_norms(white)), default=0)
    if not flat:
        return ()
    return (
        f"the gradient was zero for {flat} attacked images: white-box results overstate their "
        "robustness",
    )


def _reversed(white: Mapping[str, Runs], black: Mapping[str, Runs]) -> tuple[str, ...]:
    """An attack with gradients that finds less than one without them is not to be trusted."""
    threats = sorted(_threats(black))
    return _where(
        threats,
        lambda t: _best(white, t) + _SEARCH_LUCK < _best(black, t),
        "the white-box attack fooled fewer images than the black-box one at {}: use more "
        "steps, or suspect masked gradients",
    )


def _best(runs: Mapping[str, Runs], threat: str) -> float:
    """Largest share fooled; 1 where no such attack was run, so that nothing is said."""
    found = [_success(outcomes[threat]) for outcomes in runs.values() if threat in outcomes]
    return max(found, default=1.0)


def _one_step(white: Mapping[str, Runs], one: Runs) -> tuple[str, ...]:
    return _where(
        list(one),
        lambda t: _best(white, t) + _SEARCH_LUCK < _success(one[t]),
        "one step of the gradient (FGSM) fooled more images than many steps at {}: suspect "
        "masked gradients",
    )


def _where(threats: Sequence[str], holds: Callable[[str], bool], text: str) -> tuple[str, ...]:
    found = [threat for threat in threats if holds(threat)]
    return (text.format(", ".join(found)),) if found else ()


def _lost(white: Mapping[str, Runs]) -> tuple[str, ...]:
    """Where rounding or another runtime undoes an attack, the twin is not the served model."""
    found = []
    for name, outcomes in white.items():
        for run in outcomes.values():
            if "twin" not in run.stages:
                continue
            share = float(run.stages["twin"].mean()) - _success(run)
            if share > _LOST_IN_TRANSFER:
                found.append(
                    f"at {run.threat.norm} {run.threat.size:g} {name} fooled {share:.0%} more "
                    "of the images on the twin than on the served model: rounding to 8 bits or "
                    "a difference between the two took its strength"
                )
    return tuple(found)


def _other_model(disagreement: float) -> tuple[str, ...]:
    if disagreement <= _SEARCH_LUCK:
        return ()
    return (
        f"the twin decides {disagreement:.1%} of the clean images otherwise than the server: "
        "it is not the served model, and white-box results are not about that",
    )


def _bounded(run: Attacked) -> tuple[str, ...]:
    if _success(run) >= _ALL:
        return ()
    return (
        f"with every pixel free {_success(run):.0%} of the images were fooled instead of all: "
        "the attack is broken, or gradients are masked",
    )


def _short(name: str, usual: Attacked, longer: Attacked) -> tuple[str, ...]:
    before, after = (
        _success(usual),
        float((usual.outcome.success | longer.outcome.success).mean()),
    )
    if after <= before + max(_SEARCH_LUCK, _LITTLE_FOOLED * before):
        return ()
    return (
        f"{name} with twice the steps from other starts fooled {after:.0%} of the images "
        f"instead of {before:.0%} at {usual.threat.norm} {usual.threat.size:g}: it has not "
        "converged",
    )
