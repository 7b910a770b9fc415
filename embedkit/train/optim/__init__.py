"""Optimisers, schedules, averages and perturbed weights."""

from embedkit.train.optim.averaging import average
from embedkit.train.optim.optimiser import LARS, build_optimiser
from embedkit.train.optim.perturbation import perturbed_gradient
from embedkit.train.optim.schedule import learning_rate, rate_at, set_learning_rate

__all__ = [
    "LARS",
    "average",
    "build_optimiser",
    "learning_rate",
    "perturbed_gradient",
    "rate_at",
    "set_learning_rate",
]
