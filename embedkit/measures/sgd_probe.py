"""A linear probe by stochastic gradient descent, as MoCo, DINO and DINOv2 fit theirs."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.measures.knn import unit
from embedkit.types import Embeddings, Labels

__all__ = ["RATES", "sgd_probe"]

RATES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Learning rates tried, for a batch of 256 and unit vectors."""

MOMENTUM, BATCH = 0.9, 256
HELD_OUT = 0.1

Weights = npt.NDArray[np.float32]


def sgd_probe(
    train_z: Embeddings,
    train_y: Labels,
    test_z: Embeddings,
    *,
    classes: int,
    epochs: int = 10,
    rates: Sequence[float] = RATES,
    seed: int = 0,
) -> tuple[Labels, float]:
    """Fit a softmax classifier on unit vectors by SGD, and predict.

    Momentum 0.9, no weight decay, a cosine schedule to 0, batches of 256, weights from 0. One
    head per learning rate is trained on the same batches (as DINOv2 does); the rate is chosen
    on a tenth of the *training* images that no head has seen, and the head of that rate is
    trained again on all of them.

    Args:
        train_z: (n, d) embeddings; normalised here.
        train_y: (n,) class indices.
        test_z: (m, d) embeddings; normalised here.
        classes: Number of classes.
        epochs: Passes over the training images, at least 1.
        rates: Learning rates to choose from; among equals the smallest.
        seed: Of the held-out choice and the order of the images.

    Returns:
        (m,) predicted class indices, and the chosen rate.

    Raises:
        InvalidInput: If shapes do not match, a set is empty or a value is out of range.
    """
    _check(train_z, train_y, test_z, classes, epochs, rates)
    x, test = unit(train_z), unit(test_z)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    held, kept = np.split(order, [int(HELD_OUT * len(x))])
    tried = np.array(sorted(rates), np.float32)
    rate = float(tried[0])
    if len(held) and len(tried) > 1:
        heads = _train(x[kept], train_y[kept], tried, classes, epochs, rng)
        right = [(_logits(x[held], h).argmax(axis=1) == train_y[held]).mean() for h in heads]
        rate = float(tried[int(np.argmax(right))])
    head = _train(x, train_y, np.array([rate], np.float32), classes, epochs, rng)[0]
    predicted: Labels = _logits(test, head).argmax(axis=1)
    return predicted, rate


def _train(
    x: Embeddings,
    y: Labels,
    rates: npt.NDArray[np.float32],
    classes: int,
    epochs: int,
    rng: np.random.Generator,
) -> Weights:
    """Weights with the bias as last row, (rates, d + 1, c)."""
    n, d = x.shape
    heads, dim = len(rates), d + 1
    weights = np.zeros((dim, heads * classes), np.float32)
    velocity = np.zeros_like(weights)
    steps = epochs * -(-n // BATCH)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(n)
        for start in range(0, n, BATCH):
            rows = order[start : start + BATCH]
            batch = np.concatenate([x[rows], np.ones((len(rows), 1), np.float32)], axis=1)
            shares = _softmax((batch @ weights).reshape(len(rows), heads, classes))
            shares[np.arange(len(rows)), :, y[rows]] -= 1
            gradient = batch.T @ shares.reshape(len(rows), -1) / np.float32(len(rows))
            velocity = MOMENTUM * velocity + gradient
            scale = rates * np.float32(0.5 * (1 + np.cos(np.pi * step / steps)))
            weights -= np.repeat(scale, classes) * velocity
            step += 1
    return weights.reshape(dim, heads, classes).transpose(1, 0, 2)


def _logits(x: Embeddings, head: Weights) -> npt.NDArray[np.float32]:
    logits: npt.NDArray[np.float32] = x @ head[:-1] + head[-1]
    return logits


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float32] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares


def _check(
    train_z: Embeddings,
    train_y: Labels,
    test_z: Embeddings,
    classes: int,
    epochs: int,
    rates: Sequence[float],
) -> None:
    if train_z.ndim != 2 or test_z.ndim != 2 or train_z.shape[1] != test_z.shape[1]:
        raise InvalidInput(
            "expected embeddings (n, d) and (m, d) of the same d, got "
            f"{train_z.shape} and {test_z.shape}"
        )
    if train_y.shape != (len(train_z),) or not len(train_z):
        raise InvalidInput(f"expected one label per image, got {train_y.shape}")
    if not 0 <= train_y.min() <= train_y.max() < classes:
        raise InvalidInput(
            f"expected labels from 0 to {classes - 1}, got {train_y.min()} to {train_y.max()}"
        )
    if epochs < 1 or not rates or min(rates) <= 0:
        raise InvalidInput(
            f"expected at least one epoch and rates above 0, got {epochs} and {tuple(rates)}"
        )
