"""CIFAR-10 with a ResNet-18: conditions of published tables, and what was reached there."""

from typing import Any

from embedkit.train.recipe import Recipe
from tools.board.entries import Entry

__all__ = ["CIFAR10", "cifar10_recipe"]

_LIGHTLY = "lightly's table, batch 512, 200 epochs, one A6000, best epoch of one run"
_SOLO = "solo-learn's table, batch 256, 1000 epochs, classifier trained along"


def _row(knn: float, minutes: float, gb: float) -> str:
    return f"kNN {knn} (k = 200, T = 0.1), {minutes:.0f} min, {gb} GB: {_LIGHTLY}."


def _online(accuracy: float) -> str:
    return f"linear {accuracy}: {_SOLO}."


CIFAR10: dict[str, tuple[str, ...]] = {
    "barlow_twins": (_row(81.9, 153.3, 5.1), _online(92.10)),
    "byol": (_row(86.8, 108.3, 5.6), _online(92.58)),
    "dcl": (_row(84.0, 88.2, 4.9),),
    "dclw": (_row(82.4, 87.9, 4.9),),
    "dino": (_row(81.3, 108.6, 5.0), _online(89.52)),
    "moco": (_row(84.7, 112.2, 5.6), _online(92.94)),
    "nnclr": (_row(81.5, 88.1, 5.0), _online(91.88)),
    "simclr": (
        _row(84.8, 87.1, 4.9),
        _online(90.74),
        "kNN 83.2 (k = 10, cosine) after 100 epochs, 11.9 s per epoch on one A100: "
        "dkobak/simclr-cifar10.",
    ),
    "simsiam": (_row(76.4, 87.8, 5.0), _online(90.51)),
    "supcon": (_online(93.82),),
    "swav": (_row(84.2, 88.7, 4.9), _online(89.17)),
    "vicreg": (_online(92.07),),
    "whitening": (_online(88.67),),
}
"""What others published of the objectives, in percent; the protocols differ from each other."""

_RESNET = {"name": "resnet", "preset": "resnet18", "stem": "small"}
_VIT = {"name": "vit", "preset": "tiny", "patch": 4}
_PROJECTION: dict[str, dict[str, int]] = {
    "barlow_twins": {"layers": 3, "hidden": 2048, "dim": 2048},
    "mixed_barlow_twins": {"layers": 3, "hidden": 2048, "dim": 2048},
    "vicreg": {"layers": 3, "hidden": 2048, "dim": 2048},
    "e2mc": {"layers": 3, "hidden": 2048, "dim": 2048},
    "byol": {"layers": 2, "hidden": 1024, "dim": 256},
    "tribyol": {"layers": 2, "hidden": 1024, "dim": 256},
    "simsiam": {"layers": 3, "hidden": 2048, "dim": 2048},
}
"""Heads as wide as the papers and tables have them; others take 512-512-128."""

_LABELS = {"name": "sgd", "lr": 0.2, "weight_decay": 5e-4, "momentum": 0.9}


def cifar10_recipe(entry: Entry) -> Recipe:
    """The recipe of an objective: 200 epochs in batches of 512, SGD with lightly's rate."""
    patches = "encoder" in entry.changes
    encoder: dict[str, Any] = dict(_RESNET)
    if patches:
        pooling = entry.changes["encoder"].get("pooling", "cls")
        encoder = {**_VIT, "pooling": pooling}
    objective: dict[str, Any] = {"name": entry.objective}
    if entry.teachers:
        # The bundles of this folder's own recipes, as their commands name them.
        paths = [f"models/{name.replace('_', '-')}/1" for name in entry.teachers]
        objective |= {"teachers": paths} if entry.objective == "unic" else {"teacher": paths[0]}
    # lightly's rate is 0.06 for a batch of 128, in proportion to the batch.
    optimiser = {"name": "sgd", "lr": 0.24, "weight_decay": 5e-4, "momentum": 0.9}
    if patches:
        optimiser = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05}
    elif entry.kind == "labels" and entry.objective != "supcon":
        optimiser = _LABELS
    return Recipe.from_dict(
        {
            "augmentation": _augmentation(entry),
            "data": {"source": "cifar10:data/cifar-10-batches-py"},
            "encoder": encoder,
            "objective": objective,
            "projection": _PROJECTION.get(entry.name, {"layers": 2, "hidden": 512, "dim": 128}),
            "optimiser": optimiser,
            "schedule": {"epochs": 200, "batch_size": 512, "warmup_epochs": 10.0},
            "run": {"precision": "auto"},
        }
    )


def _augmentation(entry: Entry) -> str:
    """Mild where pixels or labels are predicted, SimCLR's elsewhere."""
    is_mild = entry.objective in ("mae", "data2vec")
    labelled = entry.kind == "labels" and entry.objective not in ("supcon", "look")
    return "standard" if is_mild or labelled else "simclr"
