"""What is fitted on top of an exported graph: a head and OOD detectors."""

from dataclasses import dataclass, replace

import numpy as np

from embedkit.bundle import Bundle, Head, derive_bundle, pack_arrays
from embedkit.data.dataset import Dataset
from embedkit.detect.detector import Detector, Observation, detectors
from embedkit.detect.threshold import Threshold, fit_calibrated
from embedkit.errors import InvalidInput
from embedkit.runtime.probe import fit_probe
from embedkit.runtime.session import Session

__all__ = ["Additions", "Fitted", "fit_additions", "replace_detector"]


@dataclass(frozen=True)
class Additions:
    """What to fit, and on which images.

    Attributes:
        head: Labelled images for a classifier, or None.
        detectors: Names of OOD detectors.
        known: Known images for the detectors; None takes those of ``head``.
        seed: Of the held-out splits.

    Raises:
        InvalidInput: If the labels are missing, or there are no images for the detectors.
    """

    head: Dataset | None = None
    detectors: tuple[str, ...] = ()
    known: Dataset | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.head is not None and self.head.labels is None:
            raise InvalidInput(
                f"expected labelled images to fit a head, got {self.head.name} without labels"
            )
        if self.detectors and self.known is None and self.head is None:
            raise InvalidInput(
                f"expected known images for the detectors {list(self.detectors)}, got none; "
                "give --detector-data DATA"
            )
        for name in self.detectors:
            _servable(name)


@dataclass(frozen=True)
class Fitted:
    """Files for the bundle and lines for its card.

    Attributes:
        files: Content by name inside the bundle.
        notes: One sentence per file, without its name, by name.
    """

    files: dict[str, bytes]
    notes: dict[str, str]


def fit_additions(session: Session, additions: Additions, own_head: Head | None) -> Fitted:
    """Fit head and detectors on what the exported graph says, not on torch.

    Args:
        session: The exported graph.
        additions: What to fit.
        own_head: The model's own classifier; it is the default head unless one is fitted.

    Raises:
        InvalidInput: If there are too few images or classes.
    """
    files, notes = {}, {}
    head = own_head
    if own_head is not None:
        name = f"heads/{'default' if additions.head is None else 'own'}.npz"
        files[name] = own_head.to_bytes()
        notes[name] = f"the model's own classifier, {len(own_head.class_names)} classes"
    if additions.head is not None and additions.head.labels is not None:
        probe = fit_probe(
            session.features(additions.head.images),
            additions.head.labels,
            class_names=additions.head.class_names or None,
            seed=additions.seed,
        )
        head = replace(probe.head, data_digest=additions.head.digest)
        files["heads/default.npz"] = head.to_bytes()
        accuracy = probe.held_out_accuracy
        notes["heads/default.npz"] = (
            f"logistic regression on the features of {len(additions.head)} images of "
            f"{additions.head.name}, {len(head.class_names)} classes, C = {probe.c:g}"
            + ("" if accuracy is None else f", accuracy on held-out images {accuracy:.4f}")
        )
    known = additions.known or additions.head
    if known is not None and additions.detectors:
        _fit_detectors(session, known, head, additions, Fitted(files, notes))
    return Fitted(files, notes)


def replace_detector(
    bundle: Bundle, method: str, known: Dataset, *, accepted: float = 0.95, seed: int = 0
) -> tuple[Bundle, Threshold]:
    """Write the next version of a bundle with one detector, in place of those it has.

    It is fitted on what the bundle's graph and head say of the known images, less a fifth of
    them that choose the threshold. A server of the new version answers with its score.

    Args:
        bundle: The version to start from.
        method: Registry name of the detector.
        known: Known images; labels are used where there are any.
        accepted: Share of known images that the threshold accepts, in (0, 1).
        seed: Of the held-out split.

    Returns:
        The new version and its threshold.

    Raises:
        InvalidInput: If there are too few images, or the detector needs what the bundle or a
            server does not give.
    """
    _servable(method)
    session = Session(bundle.graph(), bundle.model_digest(), bundle.manifest.input)
    head = bundle.head() if bundle.names("heads") else None
    observation = _observe(session, known, head)
    fitted, threshold = fit_calibrated(
        _servable(method), observation, accepted=accepted, seed=seed
    )
    arrays = {**fitted.state(), **threshold.to_arrays()}
    others = [f"detectors/{name}.npz" for name in bundle.names("detectors")]
    added = {f"detectors/{method}.npz": pack_arrays(arrays)}
    return derive_bundle(bundle, added, removed=others), threshold


def _servable(name: str) -> Detector:
    """The detector of that name.

    Raises:
        InvalidInput: If there is none, or it needs what no server makes.
    """
    detector = detectors.get(name)()
    if "views" in detector.needs:
        raise InvalidInput(
            f"expected a detector that a server can run, got {name!r}, which looks at views of "
            f"each image; use embedkit eval --detector {name}, or another detector"
        )
    return detector


def _observe(session: Session, known: Dataset, head: Head | None) -> Observation:
    """What a detector may look at, from one pass over the known images."""
    outputs = session.run_all(known.images, ("embedding", "features"))
    logits = None if head is None else head.logits(outputs["features"])
    return Observation(
        outputs["embedding"], outputs["features"], logits, known.labels, head=head
    )


def _fit_detectors(
    session: Session, known: Dataset, head: Head | None, additions: Additions, fitted: Fitted
) -> None:
    """Fit every wanted detector on one pass over the known images; adds to ``fitted``."""
    observation = _observe(session, known, head)
    for method in additions.detectors:
        detector, threshold = fit_calibrated(
            _servable(method), observation, seed=additions.seed
        )
        name = f"detectors/{method}.npz"
        arrays = {key: np.asarray(value) for key, value in detector.state().items()}
        fitted.files[name] = pack_arrays({**arrays, **threshold.to_arrays()})
        fitted.notes[name] = (
            f"OOD detector fitted on {len(known)} images of {known.name}; a score above "
            f"{threshold.value:.6g} [{threshold.low:.6g}, {threshold.high:.6g}] is novel "
            f"({threshold.accepted:.0%} of known images are below)"
        )
