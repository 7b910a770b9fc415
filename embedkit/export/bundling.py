"""From an encoder to a bundle: graph, twin, parity, golden images, heads, detectors, card."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.torch import save

from embedkit.bundle import GRAPHS, Bundle, Golden, Head, Manifest, find_bundle, write_bundle
from embedkit.bundle.content import unpack_arrays
from embedkit.bundle.manifest import check_model_name
from embedkit.data.dataset import Dataset
from embedkit.data.source import load_dataset
from embedkit.encoders.description import describe
from embedkit.errors import AlreadyExists, EmbedkitError, NotFound
from embedkit.export.additions import Additions, fit_additions
from embedkit.export.card import write_card
from embedkit.export.hard_inputs import patterns
from embedkit.export.onnx import export_graph
from embedkit.export.parity_record import Effort, measure_parity
from embedkit.export.precisions import Compared, Precisions, Smaller, make_smaller
from embedkit.export.provenance import package_versions, revision
from embedkit.export.reference import TorchReference
from embedkit.export.source import Source
from embedkit.export.training_images import training_images
from embedkit.preprocess import prepare
from embedkit.runtime.session import Session
from embedkit.types import Images

__all__ = ["Additions", "Precisions", "Target", "bundle_source"]

# Scikit-learn's digits come with the package that fits heads, so some real images always exist.
ALWAYS_THERE = "digits"
SMALL_FLOPS = 1e8
_GOLDEN_REAL = 6
_PENDING = "pending"


@dataclass(frozen=True)
class Target:
    """Where a bundle goes.

    Attributes:
        models: The folder that holds all models.
        name: Name of the model.
        version: Positive integer, or None for the next free one.

    Raises:
        InvalidInput: If the name is not one a model may have.
    """

    models: Path
    name: str
    version: int | None = None

    def __post_init__(self) -> None:
        check_model_name(self.name)

    def next_version(self) -> int:
        """The wanted version, or the one after the latest.

        Raises:
            AlreadyExists: If the wanted version is taken.
        """
        try:
            latest = int(find_bundle(self.models, self.name).name)
        except NotFound:
            latest = 0
        wanted = self.version or latest + 1
        if (self.models / self.name / str(wanted)).exists():
            raise AlreadyExists(
                f"expected a free version of {self.name!r} in {self.models}, got {wanted}; "
                "leave --version out to take the next one"
            )
        return wanted


def bundle_source(
    source: Source,
    target: Target,
    additions: Additions,
    precisions: Precisions = Precisions(),  # noqa: B008  (frozen)
) -> Bundle:
    """Export an encoder and write its bundle.

    Args:
        source: Encoder and where it comes from.
        target: Where the bundle goes.
        additions: Head and detectors to fit on the exported graph.
        precisions: Further graphs, and what they are calibrated on.

    Raises:
        InvalidInput: If a name or the data does not fit.
        AlreadyExists: If the version is taken.
        ParityFailed: If a graph differs from the torch encoder by more than its limit, which
            is 1e-5 in fp32.
    """
    encoder, spec = source.encoder, source.encoder.input
    version = target.next_version()
    known = additions.head or additions.known
    calibration = precisions.calibration_data(known, partial(training_images, source))
    graph = export_graph(encoder)
    session = Session(graph, _PENDING, spec)
    size = describe(encoder)
    # A small network in small batches waits longer for a second thread than it computes.
    reference = TorchReference(encoder, threads=1 if size.flops < SMALL_FLOPS else None)
    if known is None and precisions.calibration is None:
        known = calibration  # which is the training images then, if they were needed
    if known is None:
        known = _training_images(source) or calibration or load_dataset(ALWAYS_THERE)
    dataset = _real_images(known)
    real = prepare(dataset.images, spec)
    effort = Effort.within_budget(size.flops)
    parity = measure_parity(reference, session, real, effort=effort)
    parity["real_images"] = dataset.name
    fitted = fit_additions(session, additions, source.head)
    few = slice(effort.images)
    labels = None if dataset.labels is None else dataset.labels[few]
    head = _default_head(fitted.files)
    compared = Compared(reference, real[few], labels, len(dataset.class_names), head)
    smaller = make_smaller(graph, precisions, compared, calibration, effort)
    if smaller:
        parity["precisions"] = {key: made.record for key, made in smaller.items()}
    manifest = Manifest(
        name=target.name,
        version=version,
        input=spec,
        dim=session.dim,
        outputs={key: list(shape) for key, shape in session.outputs.items()},
        encoder=encoder.config,
        objective=source.objective,
        recipe_digest=_digest(source.recipe) if source.recipe else "",
        data_digest=source.data_digest,
        git_revision=revision(),
        versions=package_versions(),
        licence=source.licence,
    )
    card = write_card(manifest, source, size=str(size), parity=parity, notes=fitted.notes)
    files = {
        "model.onnx": graph,
        "encoder.safetensors": _weights(source),
        **{GRAPHS[key]: made.graph for key, made in smaller.items()},
        "golden.npz": _golden(reference, real, smaller).to_bytes(),
        "parity.json": (json.dumps(parity, indent=1) + "\n").encode(),
        "CARD.md": card,
        **fitted.files,
    }
    if source.recipe:
        files["recipe.toml"] = source.recipe
    return write_bundle(target.models, manifest, files)


def _real_images(dataset: Dataset) -> Dataset:
    """Up to 256 images of a data set."""
    rng = np.random.default_rng(0)
    return dataset.subset(np.sort(rng.permutation(len(dataset))[:256]))


def _training_images(source: Source) -> Dataset | None:
    """The images the model was trained on; None where these are not at hand."""
    try:
        return training_images(source)
    except (EmbedkitError, OSError):
        # The run may come from another machine; the record names the images it used.
        return None


def _default_head(files: Mapping[str, bytes]) -> Head | None:
    """The head that answers for a class, if there is one among the files."""
    data = files.get("heads/default.npz")
    return None if data is None else Head.from_arrays(unpack_arrays(data))


def _golden(reference: TorchReference, real: Images, smaller: Mapping[str, Smaller]) -> Golden:
    """Some real and some extreme images with torch's embeddings, and each smaller graph's."""
    extreme = patterns(real.shape[1:], np.random.default_rng(0))
    images = np.concatenate([real[:_GOLDEN_REAL], extreme[[0, 5]]])
    others = {name: made.session.embed(images) for name, made in smaller.items()}
    return Golden(images, reference.embed(images), others)


def _weights(source: Source) -> bytes:
    state = source.encoder.state_dict()
    return bytes(save({name: value.cpu().contiguous() for name, value in state.items()}))


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
