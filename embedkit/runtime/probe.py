"""A linear probe: logistic regression on features, its strength chosen on held-out images."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.bundle import Head
from embedkit.errors import InvalidInput
from embedkit.types import Embeddings, Labels

__all__ = ["STRENGTHS", "Probe", "fit_probe"]

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse regularisation C on standardised features that are tried, smallest first."""

HELD_OUT_SHARE = 0.2
MAX_STEPS = 300
# exp(-1e4) is 0 in any precision: a class without images is never predicted.
_NEVER = -1e4


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier.

    Attributes:
        head: Weights on the features as they are; standardisation is folded in.
        c: The chosen inverse regularisation strength.
        held_out_accuracy: Accuracy of that strength on the held-out images, a fraction; None
            where every class had too few images to hold any out, or there was one strength.
    """

    head: Head
    c: float
    held_out_accuracy: float | None


def fit_probe(
    features: Embeddings,
    labels: Labels,
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    cs: Sequence[float] = STRENGTHS,
) -> Probe:
    """Fit multinomial logistic regression by L-BFGS.

    C is chosen on a stratified 20 % of the images, then all are used. Only training images may
    be given: nothing here ever sees a test set.

    Args:
        features: (n, d) float32, before L2 normalisation or after.
        labels: (n,) class indices.
        class_names: One name per class index; by default the indices as text.
        seed: Of the held-out split.
        cs: Strengths to try; with one alone nothing is held out to choose it.

    Raises:
        InvalidInput: If shapes differ, features are not finite, a label has no class name, or
            there are fewer than two classes.
    """
    names = _check(features, labels, class_names)
    offset, scale = (
        features.mean(axis=0, dtype=np.float64),
        features.std(axis=0, dtype=np.float64),
    )
    # A constant dimension carries nothing; dividing by its rounding error would invent some.
    scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-30), scale, np.inf)
    x = ((features - offset) / scale).astype(np.float64)
    kept, held_out = _split(labels, np.random.default_rng(seed))
    c, accuracy = float(cs[0]), None
    if len(held_out) and len(cs) > 1:
        tried = {}
        fits = _fit_each(x[kept], labels[kept], sorted(cs), len(names))
        for value, linear in zip(sorted(cs), fits, strict=True):
            tried[float(value)] = _accuracy(linear, x, labels, held_out)
        c = max(tried, key=lambda value: tried[value])
        accuracy = tried[c]
    ((weight, bias),) = _fit_each(x, labels, [c], len(names))
    weight = weight / scale
    head = Head(
        weight.astype(np.float32), (bias - weight @ offset).astype(np.float32), tuple(names)
    )
    return Probe(head, c, accuracy)


_Linear = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _check(
    features: Embeddings, labels: Labels, class_names: Sequence[str] | None
) -> list[str]:
    """The class names, after everything was found to fit together."""
    if features.ndim != 2 or labels.shape != (len(features),) or len(features) == 0:
        raise InvalidInput(
            f"expected features (n, d) and labels (n,), got {features.shape} and {labels.shape}"
        )
    if not np.isfinite(features).all():
        raise InvalidInput("expected finite features, got some that are not")
    present = np.unique(labels)
    if len(present) < 2:
        raise InvalidInput(f"expected at least two classes, got only {present.tolist()}")
    names = (
        [str(i) for i in range(int(present[-1]) + 1)] if class_names is None else class_names
    )
    if present[0] < 0 or present[-1] >= len(names):
        raise InvalidInput(
            f"expected labels from 0 to {len(names) - 1}, got {present[0]} to {present[-1]}"
        )
    return list(names)


def _split(
    labels: Labels, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row numbers to fit and to hold out; a class of one image is not held out."""
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        count = max(1, round(HELD_OUT_SHARE * len(rows))) if len(rows) > 1 else 0
        held_out[rows[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _fit_each(
    x: npt.NDArray[np.float64], labels: Labels, cs: Sequence[float], classes: int
) -> list[_Linear]:
    """Weight (classes, d) and bias (classes,) on standardised features, of each strength.

    Each starts from the one before, which takes fewer steps than starting anew.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # Its products are too small to share: on a busy machine, waiting for the other thread made
    # a fit of 1,297 images 35 times slower.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # The held-out images decide how good it is; the last digits of the optimum do not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # One image per class is what a few-shot probe is about.
        warnings.filterwarnings("ignore", "The number of unique classes is greater")
        found: list[_Linear] = []
        model = LogisticRegression(max_iter=MAX_STEPS, tol=1e-4, warm_start=True)
        for c in cs:
            model.set_params(C=c).fit(x, labels)
            rows, intercepts = model.coef_, model.intercept_
            if len(rows) == 1:
                # Two classes share one row there; softmax over (0, z) is its sigmoid.
                rows = np.vstack([0 * rows, rows])
                intercepts = np.concatenate([[0.0], intercepts])
            weight, bias = np.zeros((classes, x.shape[1])), np.full(classes, _NEVER)
            weight[model.classes_], bias[model.classes_] = rows, intercepts
            found.append((weight, bias))
    return found


def _accuracy(
    linear: _Linear,
    x: npt.NDArray[np.float64],
    labels: Labels,
    rows: npt.NDArray[np.intp],
) -> float:
    predicted = (x[rows] @ linear[0].T + linear[1]).argmax(axis=1)
    return float((predicted == labels[rows]).mean())
