"""A bundle's further precisions: each graph is made, compared with torch, and recorded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from embedkit.bundle import Head
from embedkit.bundle.manifest import GRAPHS
from embedkit.data.dataset import Dataset
from embedkit.errors import EmbedkitError, InvalidInput
from embedkit.export.parity_record import Effort, measure_parity
from embedkit.export.quantize import CALIBRATION_IMAGES, to_fp16, to_int8
from embedkit.export.reference import TorchReference
from embedkit.measures.knn import nearest, vote
from embedkit.preprocess import prepare
from embedkit.runtime.session import Session
from embedkit.types import Embeddings, Images, Labels

__all__ = [
    "LEAST_CALIBRATION",
    "LEAST_OVERLAP",
    "MOST_FLIPS",
    "Compared",
    "Precisions",
    "Smaller",
    "make_smaller",
]

LEAST_OVERLAP = 0.9
"""Share of the nearest images that stay, below which an export warns."""

MOST_FLIPS = 0.02
"""Share of changed classes above which an export warns."""

LEAST_CALIBRATION = 32
"""Different images, below which an export warns of int8's scales."""

_NEIGHBOURS, _TEMPERATURE, _OVERLAP = 20, 0.07, 10


@dataclass(frozen=True)
class Precisions:
    """Which graphs a bundle has beside the fp32 one.

    Attributes:
        names: Of ``fp32``, ``fp16`` and ``int8``; fp32 is always there.
        calibration: Images for the scales of int8; None takes those of the export.

    Raises:
        InvalidInput: If a name is none of these, or nothing uses the calibration images.
    """

    names: tuple[str, ...] = ("fp32",)
    calibration: Dataset | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in GRAPHS]
        if unknown:
            raise InvalidInput(
                f"expected --precision as some of {', '.join(GRAPHS)}, "
                f"got {', '.join(name or repr(name) for name in unknown)}"
            )
        if self.calibration is not None and "int8" not in self.names:
            raise InvalidInput(
                "expected --calibration with int8 in --precision, "
                f"got {', '.join(self.names)}; nothing else is calibrated"
            )

    @property
    def smaller(self) -> tuple[str, ...]:
        """The wanted ones beside fp32, in the bundle's order."""
        return tuple(name for name in GRAPHS if name in self.names and name != "fp32")

    def calibration_data(
        self, known: Dataset | None, training: Callable[[], Dataset | None]
    ) -> Dataset | None:
        """Images like those that the model will see; None where no graph needs them.

        Args:
            known: Images that the export fits a head or a detector on, or None.
            training: Reads the training images; None without any.

        Raises:
            InvalidInput: If int8 is wanted and there are none.
        """
        if "int8" not in self.names:
            return None
        found = known if self.calibration is None else self.calibration
        problem = "a model trained elsewhere has none"
        if found is None:
            try:
                found = training()
            except (EmbedkitError, OSError) as error:
                problem = f"the training images cannot be read: {error}"
        if found is None:
            raise InvalidInput(
                f"expected images to calibrate int8 on, got none ({problem}); "
                "give --calibration DATA"
            )
        if len(found) == 0:
            raise InvalidInput(
                f"expected images to calibrate int8 on, got none in {found.name}"
            )
        return found


@dataclass(frozen=True)
class Compared:
    """Real images that decisions are compared on, and what torch says of them.

    Attributes:
        reference: The torch encoder.
        images: (n, h, w, c) uint8 at the model's size.
        labels: Their classes, or None.
        classes: How many classes there are.
        head: The bundle's classifier, or None.
    """

    reference: TorchReference
    images: Images
    labels: Labels | None = None
    classes: int = 0
    head: Head | None = None


@dataclass(frozen=True)
class Smaller:
    """One further graph.

    Attributes:
        graph: ONNX bytes.
        record: Its part of ``parity.json``.
        session: The graph, loaded.
    """

    graph: bytes
    record: dict[str, object]
    session: Session


def make_smaller(
    graph: bytes,
    wanted: Precisions,
    compared: Compared,
    calibration: Dataset | None,
    effort: Effort,
) -> dict[str, Smaller]:
    """Make every wanted graph and compare it with torch, by precision.

    Args:
        graph: In fp32.
        wanted: Which ones.
        compared: What decisions are compared on.
        calibration: Images for int8's scales.
        effort: How many images and how long a search for the largest difference.

    Raises:
        ParityFailed: If one is further from torch than ``PARITY_LIMITS`` allows.
    """
    made = {}
    # The search is for fp32's few rounding errors; int8's limit holds for real images alone.
    efforts = {
        "fp16": replace(effort, steps=-(-effort.steps // 4)),
        "int8": replace(effort, steps=0),
    }
    spec = compared.reference.input
    for name in wanted.smaller:
        facts: dict[str, object] = {}
        warnings: list[str] = []
        if name == "int8" and calibration is not None:
            order = np.random.default_rng(0).permutation(len(calibration))
            # The last ones: the first are those that it is compared on.
            chosen = calibration.subset(np.sort(order[-CALIBRATION_IMAGES:]))
            images = prepare(chosen.images, spec)
            facts["calibration"] = {"data": calibration.name, "images": len(images)}
            warnings += _calibration_warnings(images)
            smaller = to_int8(graph, images)
        else:
            smaller = to_fp16(graph)
        session = Session(smaller, name, spec)
        parity = measure_parity(
            compared.reference, session, compared.images, effort=efforts[name], precision=name
        )
        decisions = _compare_decisions(compared, session)
        warnings += _warnings(decisions)
        record = {**parity, **facts, "decisions": decisions, "warnings": warnings}
        made[name] = Smaller(smaller, record, session)
    return made


def _compare_decisions(compared: Compared, session: Session) -> dict[str, float | int]:
    """What changes when a collection is filled and searched by the smaller graph.

    Every image is searched for among the others, both embedded by one graph.
    """
    images = compared.images
    found = [_neighbours(model.embed(images)) for model in (compared.reference, session)]
    (one, _), (other, _) = found
    decisions: dict[str, float | int] = {"n": len(images)}
    if one.shape[1]:
        k = min(_OVERLAP, one.shape[1])
        shared = (one[:, :k, np.newaxis] == other[:, np.newaxis, :k]).any(axis=2)
        decisions["neighbour_overlap"] = float(shared.mean())
        if compared.labels is not None:
            votes = [
                vote(
                    compared.labels[rows],
                    cosines,
                    temperature=_TEMPERATURE,
                    classes=compared.classes,
                )
                for rows, cosines in found
            ]
            decisions["knn_flips"] = int((votes[0] != votes[1]).sum())
    if compared.head is not None:
        classes = [
            compared.head.logits(features).argmax(axis=1)
            for features in (compared.reference.features(images), session.features(images))
        ]
        decisions["class_flips"] = int((classes[0] != classes[1]).sum())
    return decisions


def _neighbours(z: Embeddings) -> tuple[Labels, Embeddings]:
    """The nearest of the other images to each, best first, and their cosines."""
    k = min(_NEIGHBOURS + 1, len(z))
    rows, cosines = nearest(z, z, k)
    others = rows != np.arange(len(z))[:, np.newaxis]
    # Where an image is not among its own nearest, as a copy of it is, the last one goes.
    others[others.all(axis=1), -1] = False
    return rows[others].reshape(len(z), k - 1), cosines[others].reshape(len(z), k - 1)


def _calibration_warnings(images: Images) -> list[str]:
    different = len(np.unique(images.reshape(len(images), -1), axis=0))
    if different >= LEAST_CALIBRATION:
        return []
    return [
        f"expected at least {LEAST_CALIBRATION} different images to calibrate on, "
        f"got {different}; others may leave the range that they span"
    ]


def _warnings(decisions: Mapping[str, float | int]) -> list[str]:
    found = []
    overlap = decisions.get("neighbour_overlap", 1.0)
    if overlap < LEAST_OVERLAP:
        found.append(
            f"expected at least {LEAST_OVERLAP:g} of the {_OVERLAP} nearest images to stay, "
            f"got {overlap:.3f}"
        )
    for key, what in (("knn_flips", "votes of neighbours"), ("class_flips", "classes")):
        share = decisions.get(key, 0) / decisions["n"]
        if share > MOST_FLIPS:
            found.append(
                f"expected at most {MOST_FLIPS:g} of the {what} to change, got {share:.3f}"
            )
    return found
