"""The linear probe against another optimiser of the same objective."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from embedkit.runtime.probe import fit_probe

CLASSES, DIM = 5, 12


@pytest.fixture
def known():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, CLASSES, 300)
    features = rng.normal(size=(CLASSES, DIM))[labels] + 1.5 * rng.normal(size=(300, DIM))
    return (features * np.arange(1, DIM + 1) + 3).astype(np.float32), labels


@pytest.mark.parametrize("strength", [0.01, 1.0, 10.0])
def test_the_probe_is_at_the_minimum_of_its_objective(known, strength: float) -> None:
    """C times the summed cross-entropy, plus half the squared weights, on unit variances."""
    features, labels = known
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    truth = np.eye(CLASSES)[labels]

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        table = parameters.reshape(CLASSES, DIM + 1)
        weight, bias = table[:, :-1], table[:, -1]
        logarithms = log_softmax(x @ weight.T + bias, axis=1)
        gaps = strength * (np.exp(logarithms) - truth)
        loss = -strength * np.sum(logarithms * truth) + 0.5 * np.sum(weight**2)
        slope = np.column_stack([gaps.T @ x + weight, gaps.sum(axis=0)])
        return float(loss), slope.ravel()

    best = minimize(
        objective,
        np.zeros(CLASSES * (DIM + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-9},
    )
    head = fit_probe(features, labels, cs=(strength,)).head
    # Back from the features as they are to those of unit variance.
    weight = head.weight * features.std(axis=0)
    bias = head.bias + head.weight @ features.mean(axis=0)
    ours, _ = objective(np.column_stack([weight, bias]).ravel())
    # It stops at a slope of 1e-4, where the loss is still a millionth above the least.
    assert best.fun * (1 - 1e-6) <= ours <= best.fun * (1 + 5e-6)
    table = best.x.reshape(CLASSES, DIM + 1)
    theirs = (x @ table[:, :-1].T + table[:, -1]).argmax(axis=1)
    assert (head.logits(features).argmax(axis=1) == theirs).mean() >= 0.999
