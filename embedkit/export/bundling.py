"""From an encoder to a bundle: graph, twin, parity, golden images, heads, detectors, card."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import save

from embedkit.bundle import Bundle, Golden, Manifest, find_bundle, write_bundle
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
from embedkit.export.provenance import package_versions, revision
from embedkit.export.reference import TorchReference
from embedkit.export.source import Source
from embedkit.preprocess import InputSpec, prepare
from embedkit.runtime.session import Session
from embedkit.types import Images

__all__ = ["Additions", "Target", "bundle_source"]

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


def bundle_source(source: Source, target: Target, additions: Additions) -> Bundle:
    """Export an encoder and write its bundle.

    Args:
        source: Encoder and where it comes from.
        target: Where the bundle goes.
        additions: Head and detectors to fit on the exported graph.

    Raises:
        InvalidInput: If a name or the data does not fit.
        AlreadyExists: If the version is taken.
        ParityFailed: If the graph differs from the torch encoder by more than 1e-5.
    """
    encoder, spec = source.encoder, source.encoder.input
    version = target.next_version()
    graph = export_graph(encoder)
    session = Session(graph, _PENDING, spec)
    size = describe(encoder)
    # A small network in small batches waits longer for a second thread than it computes.
    reference = TorchReference(encoder, threads=1 if size.flops < SMALL_FLOPS else None)
    name, real = _real_images(source, additions, spec)
    parity = measure_parity(reference, session, real, effort=Effort.within_budget(size.flops))
    parity["real_images"] = name
    fitted = fit_additions(session, additions, source.head)
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
        "golden.npz": _golden(reference, real).to_bytes(),
        "parity.json": (json.dumps(parity, indent=1) + "\n").encode(),
        "CARD.md": card,
        **fitted.files,
    }
    if source.recipe:
        files["recipe.toml"] = source.recipe
    return write_bundle(target.models, manifest, files)


def _real_images(source: Source, additions: Additions, spec: InputSpec) -> tuple[str, Images]:
    """Up to 256 real images at the model's size, and the name of their data set."""
    dataset = additions.head or additions.known or _training_images(source)
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(dataset))[:256])
    return dataset.name, prepare(dataset.subset(chosen).images, spec)


def _training_images(source: Source) -> Dataset:
    """The images the model was trained on, or scikit-learn's where these are not at hand."""
    if source.data:
        try:
            return load_dataset(source.data)
        except (EmbedkitError, OSError):
            # The run may come from another machine; the record names the images it used.
            pass
    return load_dataset(ALWAYS_THERE)


def _golden(reference: TorchReference, real: Images) -> Golden:
    """Some real and some extreme images with torch's embeddings."""
    extreme = patterns(real.shape[1:], np.random.default_rng(0))
    images = np.concatenate([real[:_GOLDEN_REAL], extreme[[0, 5]]])
    return Golden(images, reference.embed(images))


def _weights(source: Source) -> bytes:
    state = source.encoder.state_dict()
    return bytes(save({name: value.cpu().contiguous() for name, value in state.items()}))


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
