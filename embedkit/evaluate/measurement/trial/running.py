"""The runs of a trial: every attack under every threat, and those that check the attacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.evaluate.attack import Method, attacks, subset
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.measurement.trial.attacking import (
    Attacked,
    RandomNoise,
    Runs,
    Trial,
    attack_at,
)
from embedkit.evaluate.measurement.trial.sanity import Extra
from embedkit.evaluate.threat import NORMS, Threat

__all__ = [
    "Everything",
    "attack_everywhere",
    "check_runs",
    "known_threats",
    "make_attack",
    "needs_gradient",
    "threats_of",
]

_CHECKED = 48
"""Images of the runs that are made for the checks alone."""

_VARIANTS: Mapping[str, tuple[Mapping[str, object], ...]] = {
    # What moves an embedding most and what turns a decision are two directions.
    "pgd": ({"loss": "cosine"}, {"loss": "decision"}),
}


@dataclass(frozen=True)
class Everything:
    """All runs of one trial.

    Attributes:
        runs: Per attack, its results; one that cannot be run here is not among them.
        noise: Those of random noise.
        extra: Runs for the checks.
    """

    runs: dict[str, Runs]
    noise: Runs
    extra: Extra


def threats_of(context: Context) -> tuple[Threat, ...]:
    """Every threat of a run that one of its attacks knows: by norm, smallest first.

    Raises:
        InvalidInput: If there is none, a norm is unknown, or a patch is larger than an image.
    """
    options = context.options
    found: list[Threat] = []
    limit = options.square_queries
    for norm in dict.fromkeys(options.norms):
        if norm == "patch":
            sides = sorted(set(options.patch_sides_px))
            _check_sides(sides, context)
            found += [Threat.patch(side, limit) for side in sides]
        elif norm in NORMS:
            radii = options.radii_255 if norm == "linf" else options.l2_radii_255
            found += [Threat(norm, radius, limit) for radius in sorted(set(radii))]
        else:
            raise InvalidInput(f"expected a norm of {', '.join(NORMS)}, got {norm!r}")
    if not found:
        raise InvalidInput("expected at least one radius to attack at, got none")
    known = {norm for name in options.attacks for norm in attacks.get(name).norms}
    if not any(threat.norm in known for threat in found):
        norms = tuple(dict.fromkeys(threat.norm for threat in found))
        raise InvalidInput(
            f"expected an attack that knows the norm {' or '.join(norms)}, got "
            f"{', '.join(options.attacks)}; attacks that do: {_attacks_under(norms)}"
        )
    return tuple(threat for threat in found if threat.norm in known)


def known_threats(name: str, context: Context) -> tuple[Threat, ...]:
    """The threats of a run that an attack knows."""
    norms = attacks.get(name).norms
    return tuple(threat for threat in threats_of(context) if threat.norm in norms)


def _check_sides(sides: Sequence[int], context: Context) -> None:
    """A patch larger than the image would be a whole new image."""
    spec = context.spec
    shorter = min(spec.height, spec.width)
    if sides and sides[-1] > shorter:
        raise InvalidInput(
            f"expected a side of a patch of at most {shorter} pixels, because the model takes "
            f"images of {spec.height} x {spec.width}, got {sides[-1]}; give smaller ones "
            "(--patch-side)"
        )


def _attacks_under(norms: Sequence[str]) -> str:
    """The attacks that know one of the norms."""
    return ", ".join(
        name for name in attacks.names() if not attacks.get(name).norms.isdisjoint(norms)
    )


def needs_gradient(name: str) -> bool:
    """Whether an attack climbs on the twin."""
    return "gradient" in attacks.get(name).needs


def make_attack(name: str, options: Options) -> list[Method]:
    """The attack with the run's steps and queries; several where the worst of them counts."""
    kind: Any = attacks.get(name)
    known = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    given = {"steps": options.pgd_steps, "queries": options.square_queries}
    settings = {key: value for key, value in given.items() if key in known}
    return [kind(**settings, **variant) for variant in _VARIANTS.get(name, ({},))]


def attack_everywhere(
    trial: Trial, names: Sequence[str], context: Context, warnings: list[str]
) -> Everything:
    """Run every attack under each threat that it knows, and random noise beside them.

    Args:
        trial: What is attacked.
        names: Attacks; those by gradient need the trial's twin.
        context: Settings, seed and progress.
        warnings: Appended to where an attack cannot be run, or no attack knows a norm.

    Raises:
        InvalidInput: If none of the run's attacks knows one of its norms.
    """
    threats = threats_of(context)
    for norm in dict.fromkeys(context.options.norms):
        if norm not in {threat.norm for threat in threats}:
            warnings.append(
                f"no {norm}: none of the attacks {', '.join(context.options.attacks)} knows "
                f"it; attacks that do: {_attacks_under([norm])}"
            )
    noise = _under(trial, [RandomNoise()], threats, context, "random noise")
    runs: dict[str, Runs] = {}
    for name in names:
        methods = make_attack(name, context.options)
        known = known_threats(name, context)
        if not known:
            norms = sorted({t.norm for t in threats})
            warnings.append(f"no {name}: it does not know {' or '.join(norms)}")
            continue
        try:
            runs[name] = _under(trial, methods, known, context, name)
        except InvalidInput as error:
            warnings.append(f"no {name}: {error}")
    white = frozenset(name for name in runs if needs_gradient(name))
    return Everything(runs, noise, Extra(white))


def _under(
    trial: Trial,
    methods: Sequence[Method],
    threats: Sequence[Threat],
    context: Context,
    name: str,
) -> Runs:
    runs: dict[str, Attacked] = {}
    for done, threat in enumerate(threats):
        context.progress(f"{name} at {threat.norm} {threat.size:g}", done / len(threats))
        runs[threat.name] = attack_at(trial, methods, threat, seed=context.seed)
    return runs


def check_runs(trial: Trial, everything: Everything, context: Context) -> Extra:
    """Make the runs that only check the others; on few images, under linf or l2.

    Args:
        trial: What was attacked.
        everything: Its runs.
        context: Settings, seed and progress.
    """
    target = trial.target
    again = trial.head.margins(target.victim.embed(target.images), np.arange(len(trial.clean)))
    extra = replace(everything.extra, flips=float((again <= 0).mean()))
    climbing = {
        name: {key: run for key, run in everything.runs[name].items() if key in usable}
        for name in sorted(extra.white)
        for usable in [_climbable(everything.runs[name])]
    }
    climbing = {name: runs for name, runs in climbing.items() if runs}
    if target.surrogate is None or not climbing:
        return extra
    mine = trial.head.margins(target.surrogate.embed(target.images), np.arange(len(again)))
    name, runs = next(iter(climbing.items()))
    threats = [run.threat for run in runs.values()]
    small = _part(trial, np.arange(min(len(trial.clean), _CHECKED)))
    free = Threat("linf", 255) if threats[0].norm == "linf" else _whole(trial)
    context.progress("checks of the attacks", 0.0)
    fooling = make_attack(name, context.options)
    return replace(
        extra,
        disagreement=float((mine <= 0).mean()),
        one_step=_under(
            replace(trial, victim=None),
            make_attack("fgsm", context.options),
            threats,
            context,
            "fgsm",
        ),
        unbounded=attack_at(small, fooling, free, seed=context.seed),
        longer=_longer(name, small, runs, context),
    )


def _climbable(runs: Runs) -> set[str]:
    return {key for key, run in runs.items() if run.threat.norm != "patch"}


def _whole(trial: Trial) -> Threat:
    """An l2 ball that holds every image."""
    shape = trial.target.images.shape[1:]
    return Threat("l2", float(255 * np.sqrt(np.prod(shape))))


def _longer(
    name: str, trial: Trial, runs: Runs, context: Context
) -> tuple[str, Attacked, Attacked] | None:
    """Twice the steps from other starts, where about half of the images are fooled."""
    options = replace(context.options, pgd_steps=2 * context.options.pgd_steps)
    usual = min(runs.values(), key=lambda r: abs(r.outcome.success.mean() - 0.5))
    methods = make_attack(name, options)
    longer = attack_at(trial, methods, usual.threat, seed=context.seed + 1)
    rows = np.arange(len(trial.clean))
    return name, _first(usual, rows), longer


def _first(run: Attacked, rows: npt.NDArray[np.int64]) -> Attacked:
    """The run about some of its images only."""
    outcome = run.outcome
    part = replace(
        outcome,
        adversarial=outcome.adversarial[rows],
        success=outcome.success[rows],
        distances=outcome.distances[rows],
        candidates=outcome.candidates[rows],
        embeddings=outcome.embeddings[rows],
        queries=outcome.queries[rows],
        gradient_norms=None,
    )
    return replace(run, outcome=part, shift=run.shift[rows], stages={})


def _part(trial: Trial, rows: npt.NDArray[np.int64]) -> Trial:
    """The trial with some of its attacked images, without the stages of files."""
    target = trial.target
    head = subset(trial.head, rows)
    ids = tuple(target.ids[i] for i in rows)
    part = replace(target, head=head, images=target.images[rows], ids=ids)
    handled = np.ones(len(rows), bool)
    return replace(
        trial, head=head, target=part, clean=trial.clean[rows], handled=handled, victim=None
    )
