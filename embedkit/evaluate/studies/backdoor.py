"""Does an encoder that saw a few poisoned images obey their trigger?"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.errors import InvalidInput
from embedkit.evaluate.measurement.figures import image_grid
from embedkit.evaluate.measurement.means import mean_metric
from embedkit.evaluate.statistics import (
    Difference,
    Metric,
    Metrics,
    accuracy,
    mcnemar,
    robust_accuracy,
)
from embedkit.evaluate.studies.trigger import Trigger, psnr_db
from embedkit.evaluate.study import Progress, TrainFn, labels_of, pixels_of, silent
from embedkit.evaluate.task import TaskResult
from embedkit.measures.knn import weighted_knn
from embedkit.runtime.probe import fit_probe
from embedkit.types import Embedder, Images, Labels

__all__ = ["HEADS", "Backdoor", "poison"]

HEADS = ("knn", "linear")
_K = 20
_SHOWN = 4

Predictions = dict[str, dict[str, Labels]]
"""Predicted classes of the test images by head, then by what was done to the images."""


@dataclass(frozen=True)
class Backdoor:
    """CTRL (Li et al. 2023): unlabelled training images are poisoned, then the trigger is used.

    Some images of the target class get the trigger, their share of all training images being
    ``share``; no label is changed, and none is used in training. Two encoders are trained with
    the same recipe, on the images as they are and on the poisoned ones, and served. The vote of
    the 20 nearest clean training images and a linear probe on them decide.

    Metrics of the poisoned model per head: ``accuracy`` on clean test images; ``success``, the
    share of test images of other classes that are taken for the target once they carry the
    trigger; ``control``, the same with a trigger of the same strength at other frequencies;
    ``success_gain`` and ``accuracy_change``, the differences from the clean model on the same
    images. ``psnr_db`` says how visible the trigger is. Baseline ``clean_model``: the first
    three. Intervals are over test images: another training run may differ by more.

    Attributes:
        target: Class that the trigger should lead to.
        share: Poisoned images, a fraction of all training images.
        trigger: What they get.
    """

    target: int = 0
    share: float = 0.01
    trigger: Trigger = field(default_factory=Trigger)

    def run(
        self,
        train_fn: TrainFn,
        train: Dataset,
        test: Dataset,
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> TaskResult:
        """Train both encoders and use the trigger on both.

        Raises:
            InvalidInput: If there are no labels or not enough images of the target class.
        """
        rows = poison_rows(labels_of(train), self.target, self.share, seed)
        others = np.flatnonzero(labels_of(test) != self.target)
        if not len(others):
            raise InvalidInput("expected test images of other classes than the target's")
        found: dict[str, Predictions] = {}
        sets = {"clean": train, "poisoned": poison(train, rows, self.trigger)}
        for number, (name, images) in enumerate(sets.items()):
            progress(f"{name}: training", number / len(sets))
            with train_fn(images, name) as model:
                progress(f"{name}: evaluating", (number + 0.8) / len(sets))
                found[name] = self._predict(model, train, test, seed)
        labels = labels_of(test)
        clean = pixels_of(test)[others]
        seen = psnr_db(clean, self.trigger(clean))
        return TaskResult(
            "backdoor",
            self._metrics(found, labels, others, seen),
            {"clean_model": self._shares(found["clean"], labels, others)},
            cost={"trainings": 2, "poisoned_images": len(rows), "images": len(train)},
            warnings=(
                f"{len(rows)} of {len(train)} training images were poisoned; intervals are "
                "over test images, and another training run may differ by more",
            ),
            items={"labels": labels, "poisoned": rows, **_items(found)},
            figures={"trigger": self._pictures(clean)},
        )

    def _predict(
        self, model: Embedder, train: Dataset, test: Dataset, seed: int
    ) -> Predictions:
        """Decisions on clean, triggered and otherwise triggered test images."""
        labels, classes = labels_of(train), train.class_names
        bank, images = model.embed(pixels_of(train)), pixels_of(test)
        head = fit_probe(bank, labels, class_names=classes, seed=seed).head
        made: Predictions = {name: {} for name in HEADS}
        control = self.trigger.control()
        changes = {"clean": images, "trigger": self.trigger(images), "control": control(images)}
        for change, pixels in changes.items():
            z = model.embed(pixels)
            voted = weighted_knn(bank, labels, z, ks=(_K,), classes=len(classes))
            made["knn"][change] = voted[_K]
            made["linear"][change] = head.logits(z).argmax(axis=1)
        return made

    def _shares(
        self, found: Predictions, labels: Labels, others: npt.NDArray[np.int64]
    ) -> Metrics:
        """Accuracy, success and control of one model."""
        metrics: Metrics = {}
        for head, predicted in found.items():
            metrics[f"{head}.accuracy"] = accuracy(predicted["clean"] == labels)
            for name, change in (("success", "trigger"), ("control", "control")):
                obeyed = predicted[change][others] == self.target
                share = robust_accuracy(obeyed)
                metrics[f"{head}.{name}"] = Metric(
                    share.value, share.ci, share.n, "fraction", False, share.ci_method
                )
        return metrics

    def _metrics(
        self,
        found: dict[str, Predictions],
        labels: Labels,
        others: npt.NDArray[np.int64],
        seen: npt.NDArray[np.float64],
    ) -> Metrics:
        """Those of the poisoned model, and the differences from the clean one."""
        metrics = self._shares(found["poisoned"], labels, others)
        for head in HEADS:
            before, after = found["clean"][head], found["poisoned"][head]
            gain = mcnemar(
                before["trigger"][others] == self.target,
                after["trigger"][others] == self.target,
            )
            change = mcnemar(before["clean"] == labels, after["clean"] == labels)
            metrics[f"{head}.success_gain"] = _difference(gain, higher_is_better=False)
            metrics[f"{head}.accuracy_change"] = _difference(change, higher_is_better=True)
        finite = seen[np.isfinite(seen)]
        if len(finite):
            metrics["psnr_db"] = mean_metric(finite, unit="dB")
        return metrics

    def _pictures(self, images: Images) -> dict[str, object]:
        shown = images[:_SHOWN]
        rows = [
            ("as they are", shown),
            ("with the trigger", self.trigger(shown)),
            ("with the control", self.trigger.control()(shown)),
        ]
        return image_grid(rows, "The trigger and its control")


def poison_rows(labels: Labels, target: int, share: float, seed: int) -> npt.NDArray[np.int64]:
    """Which training images are poisoned: a seeded choice among those of the target class.

    Raises:
        InvalidInput: If the share is none, or more than the target class has.
    """
    members = np.flatnonzero(labels == target)
    count = math.floor(share * len(labels))
    if not 1 <= count <= len(members):
        raise InvalidInput(
            f"expected a share that poisons 1 to {len(members)} images of class {target}, got "
            f"{share:g} of {len(labels)} images, which is {count}"
        )
    return np.sort(np.random.default_rng(seed).permutation(members)[:count])


def poison(train: Dataset, rows: npt.NDArray[np.int64], trigger: Trigger) -> Dataset:
    """The training images with the trigger in those at ``rows``; labels stay as they are."""
    images = pixels_of(train).copy()
    images[rows] = trigger(images[rows])
    return Dataset(f"{train.name} poisoned", images, train.labels, train.class_names, train.ids)


def _difference(found: Difference, *, higher_is_better: bool) -> Metric:
    return Metric(found.value, found.ci, found.n, "fraction", higher_is_better, found.ci_method)


def _items(found: dict[str, Predictions]) -> dict[str, npt.NDArray[np.generic]]:
    return {
        f"{model}.{head}.{change}": predicted
        for model, heads in found.items()
        for head, changes in heads.items()
        for change, predicted in changes.items()
    }
