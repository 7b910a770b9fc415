"""What corrupted images do to embeddings and to the decisions made from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context, Which
from embedkit.measures.knn import Neighbours, nearest, vote
from embedkit.types import Images

__all__ = ["Case", "Shift", "follow"]

Case = tuple[str, int]
"""A corruption and a severity."""

_NEIGHBOURS, _TEMPERATURE, _OVERLAP = 20, 0.07, 10


@dataclass(frozen=True)
class Shift:
    """What one model does with one version of the images, (n,) each.

    Attributes:
        drift: 1 - cosine with the embedding of the clean image, 0 to 2.
        overlap: Share of the 10 nearest training images of the clean image that stay.
        wrong: Whether the vote of 20 training images is wrong; None without labels.
    """

    drift: npt.NDArray[np.float64]
    overlap: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.bool_] | None


def follow(
    context: Context,
    which: Which,
    clean: Dataset,
    cases: Sequence[Case],
    spoilt: Callable[[Case], Images],
    *,
    bank: Dataset,
    with_classes: bool,
) -> tuple[Shift, dict[Case, Shift]]:
    """Embed the clean images and every corrupted version of them.

    Args:
        context: The models.
        which: The model.
        clean: The images, at the model's size.
        cases: What is done to them.
        spoilt: The images of a case.
        bank: Training images that vote.
        with_classes: Whether both sets have classes to vote for.

    Returns:
        The clean images compared with themselves, and each case.
    """
    train = context.embeddings(which, bank)
    before = context.embeddings(which, clean)
    k = min(_NEIGHBOURS, len(train))
    kept = nearest(train, before, k)[0][:, :_OVERLAP]

    def shift(data: Dataset) -> Shift:
        z = context.embeddings(which, data)
        rows, cosines = nearest(train, z, k)
        wrong = None
        if with_classes:
            predicted = vote(
                np.asarray(bank.labels)[rows],
                cosines,
                temperature=_TEMPERATURE,
                classes=len(bank.class_names),
            )
            wrong = predicted != clean.labels
        drift = 1 - np.sum(z.astype(np.float64) * before, axis=1)
        return Shift(drift.clip(0, 2), _overlap(kept, rows[:, :_OVERLAP]), wrong)

    found: dict[Case, Shift] = {}
    for index, case in enumerate(cases):
        context.progress(f"{which}: {case[0]} {case[1]}", index / len(cases))
        found[case] = shift(Dataset(f"{case[0]} {case[1]}", spoilt(case)))
    return shift(clean), found


def _overlap(before: Neighbours, after: Neighbours) -> npt.NDArray[np.float64]:
    """Share of the rows of one that are in the other, by image."""
    shared = (before[:, :, np.newaxis] == after[:, np.newaxis, :]).any(axis=2)
    return np.asarray(shared.mean(axis=1))
