"""Novelty scores with gradients, for attacks on the decision between known and novel."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from embedkit.detect.detector import FittedDetector, Observation, State
from embedkit.errors import InvalidInput
from embedkit.evaluate.measurement.victim.heads import OodHead

__all__ = ["novelty_of"]

_STEP = 1e-3
"""Of a logit; scores of logits are smooth on this scale."""

Novelty = Callable[[Tensor], Tensor]


def novelty_of(head: OodHead, device: torch.device) -> Novelty:
    """Return the detector's score as a function of what the twin returns, (n, d) to (n,).

    Detectors of logits alone are differentiated by central differences of their own scores.

    Raises:
        InvalidInput: If the detector has no gradient here.
    """
    detector = head.detector
    method, state = type(detector).__module__.rpartition(".")[2], detector.state()
    if method == "knn":
        bank, k = _tensor(state["bank"], device), int(state["k"].item())
        return lambda z: (
            (2 - 2 * (normalize(z, dim=1) @ bank.T).topk(k, dim=1).values[:, -1]).clamp_min(
                1e-12
            )
            ** 0.5
        )
    if method == "mahalanobis":
        return _nearest_mean(state, "means", "whitening", device)
    if method == "relative_mahalanobis":
        own = _nearest_mean(state, "means", "whitening", device)
        every = _nearest_mean(state, "mean", "whitening_all", device)
        return lambda z: own(z) - every(z)
    if head.head is None:
        raise InvalidInput(_unknown(detector))
    weight, bias = _tensor(head.head.weight, device), _tensor(head.head.bias, device)
    if method == "vim":
        origin = _tensor(state["origin"], device)
        directions = _tensor(state["directions"], device)
        alpha = float(state["alpha"].item())
        return lambda z: (
            alpha * ((z - origin) @ directions).norm(dim=1)
            - (z @ weight.T + bias).logsumexp(dim=1)
        )
    if detector.needs <= {"logits"}:
        return lambda z: _differences(detector, z @ weight.T + bias)
    raise InvalidInput(_unknown(detector))


def _nearest_mean(state: State, means: str, whitening: str, device: torch.device) -> Novelty:
    """Squared distance to the nearest of the means after whitening."""
    white = _tensor(state[whitening], device)
    centres = _tensor(state[means], device) @ white.T
    on_features = bool(state["on_features"])

    def score(z: Tensor) -> Tensor:
        found = z if on_features else normalize(z, dim=1)
        apart: Tensor = (found @ white.T)[:, None] - centres
        return apart.square().sum(dim=2).amin(dim=1)

    return score


def _differences(detector: FittedDetector, logits: Tensor) -> Tensor:
    """The score of logits, with the gradient that central differences give."""
    with torch.no_grad():
        steps = _STEP * torch.eye(logits.shape[1], device=logits.device)
        around = torch.cat([logits[:, None] + steps, logits[:, None] - steps], dim=1)
        every = torch.cat([logits[:, None], around], dim=1)
        flat = every.flatten(0, 1).cpu().numpy()
        scores = detector.score(Observation(np.ones((len(flat), 1), np.float32), logits=flat))
        grid = torch.tensor(scores, dtype=logits.dtype, device=logits.device)
        classes = len(steps)
        table = grid.view(every.shape[:2])
        value, up, down = table[:, 0], table[:, 1 : classes + 1], table[:, classes + 1 :]
        gradient = (up - down) / (2 * _STEP)
    # Linear around here: the value of the score, and its slope.
    slope: Tensor = (gradient * (logits - logits.detach())).sum(dim=1)
    return value + slope


def _tensor(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.tensor(array, dtype=torch.float32, device=device)


def _unknown(detector: FittedDetector) -> str:
    return (
        "expected a detector with a gradient (knn, mahalanobis, relative_mahalanobis, vim, or "
        f"one of logits), got {type(detector).__name__}; attack it by queries"
    )
