"""Learning rates over a run: half a cosine, or one that need not know where the run ends."""

import math

import torch

from embedkit.train.settings import ScheduleSection

__all__ = ["infinite_rate", "learning_rate", "rate_at", "set_learning_rate"]


def rate_at(
    step: int, settings: ScheduleSection, *, total: int, warmup: int, peak: float
) -> float:
    """The learning rate of one step under a recipe's schedule.

    Args:
        step: 0-based.
        settings: Kind of schedule and its fractions.
        total: Steps of the whole run.
        warmup: Steps until the peak.
        peak: Largest learning rate.
    """
    if settings.kind == "constant":
        return peak * min(1.0, (step + 1) / warmup) if warmup else peak
    if settings.kind == "infinite":
        held = settings.constant_lr
        cooled = warmup + round(settings.cooldown * (total - warmup))
        annealed = total - round(settings.anneal * (total - warmup))
        if step < warmup or step >= annealed:
            shape = (total, warmup, annealed)
            return peak * _ends(step, shape, held, settings.final_lr)
        return peak * infinite_rate(step - warmup, cooldown=cooled - warmup, constant=held)
    return learning_rate(step, total=total, warmup=warmup, peak=peak, final=settings.final_lr)


def infinite_rate(step: int, *, cooldown: int, constant: float) -> float:
    """Singh et al. (2025), Beyond Cosine Decay, equation 1 between warm-up and annealing.

    Half a cosine from the peak to a rate that is then held for as long as anyone likes: a run
    can be continued from any step of the constant phase, with more data, without warming up
    again.

    Args:
        step: 0-based, after the warm-up.
        cooldown: Steps from the peak to the constant rate.
        constant: That rate as a fraction of the peak.

    Returns:
        The rate as a fraction of the peak.

    Example:
        >>> [infinite_rate(s, cooldown=2, constant=0.5) for s in (0, 1, 2, 1000)]
        [1.0, 0.75, 0.5, 0.5]
    """
    if step >= cooldown:
        return constant
    return constant + (1 - constant) * (1 + math.cos(math.pi * step / cooldown)) / 2


def _ends(step: int, shape: tuple[int, int, int], held: float, final: float) -> float:
    """Warm-up from 0, or the exponential decay from the held rate to the final one."""
    total, warmup, annealed = shape
    if step < warmup:
        return (step + 1) / warmup
    return float(held * (final / held) ** ((step + 1 - annealed) / (total - annealed)))


def learning_rate(
    step: int, *, total: int, warmup: int, peak: float, final: float = 0.0
) -> float:
    """The learning rate of one step: linear warm-up, then half a cosine.

    Args:
        step: 0-based.
        total: Steps of the whole run.
        warmup: Steps until the peak; the first of them already has ``peak / warmup``.
        peak: Largest learning rate.
        final: Learning rate after the last step, as a fraction of the peak.

    Example:
        >>> [learning_rate(s, total=4, warmup=2, peak=1.0) for s in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = lr
