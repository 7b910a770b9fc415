"""What corrupted images do to embeddings and to the decisions made from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.evaluate.context import Context, Which
from embedkit.measures.knn import Neighbours, nearest, vote
from embedkit.types import Images

__all__ = ["Case", "Follower", "Shift", "follow"]

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


class Follower:
    """Compares what one model makes of changed images with what it made of the clean ones.

    Args:
        context: The models.
        which: The model.
        clean: The images, at the model's size.
        bank: Training images that vote.
        with_classes: Whether both sets have classes to vote for.
    """

    def __init__(
        self, context: Context, which: Which, clean: Dataset, bank: Dataset, with_classes: bool
    ) -> None:
        self.which = which
        self._context = context
        self._clean = clean
        self._bank = bank
        self._with_classes = with_classes
        self._train = context.embeddings(which, bank)
        self._before = context.embeddings(which, clean)
        self._k = min(_NEIGHBOURS, len(self._train))
        self._kept = nearest(self._train, self._before, self._k)[0][:, :_OVERLAP]

    def shift(self, changed: Dataset) -> Shift:
        """Compare changed versions of the images, in the same order."""
        z = self._context.embeddings(self.which, changed)
        rows, cosines = nearest(self._train, z, self._k)
        wrong = None
        if self._with_classes:
            predicted = vote(
                np.asarray(self._bank.labels)[rows],
                cosines,
                temperature=_TEMPERATURE,
                classes=len(self._bank.class_names),
            )
            wrong = predicted != self._clean.labels
        drift = 1 - np.sum(z.astype(np.float64) * self._before, axis=1)
        return Shift(drift.clip(0, 2), _overlap(self._kept, rows[:, :_OVERLAP]), wrong)

    def clean(self) -> Shift:
        """The clean images compared with themselves."""
        return self.shift(self._clean)


def follow(
    followers: Sequence[Follower],
    cases: Sequence[Case],
    spoilt: Callable[[Case], Images],
    progress: Callable[[str, float], None],
) -> list[dict[Case, Shift]]:
    """Make each case's images once and let every follower compare them.

    Returns:
        What each follower found, by case.
    """
    found: list[dict[Case, Shift]] = [{} for _ in followers]
    for index, case in enumerate(cases):
        progress(f"{case[0]} {case[1]}", index / len(cases))
        changed = Dataset(f"{case[0]} {case[1]}", spoilt(case))
        for follower, shifts in zip(followers, found, strict=True):
            shifts[case] = follower.shift(changed)
    return found


def _overlap(before: Neighbours, after: Neighbours) -> npt.NDArray[np.float64]:
    """Share of the rows of one that are in the other, by image."""
    shared = (before[:, :, np.newaxis] == after[:, np.newaxis, :]).any(axis=2)
    return np.asarray(shared.mean(axis=1))
