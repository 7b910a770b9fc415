"""A bundle in this process: the same Embedder as the served one, without a server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.bundle import Bundle, Head
from embedkit.errors import BundleDamaged, NotFound
from embedkit.preprocess import InputSpec
from embedkit.preprocess.given import ImageInput, prepared_batches
from embedkit.runtime.session import CHUNK_IMAGES, Output, Session
from embedkit.types import (
    Embeddings,
    ImageScores,
    Probabilities,
    Scores,
)

__all__ = ["GOLDEN_LIMITS", "LocalModel", "Novelty", "check_golden", "load", "softmax"]

GOLDEN_LIMITS = {"fp32": 1e-5, "fp16": 1e-3, "int8": 2e-2}
"""Largest accepted difference of one coordinate of a golden embedding, by precision.

It is taken from what the same precision gave at the export. In int8 another order of sums can
move an activation by one step, which later layers carry on.
"""

Novelty = Callable[[Embeddings, Embeddings, npt.NDArray[np.float32] | None], Scores]
"""OOD score from embeddings (n, d), features (n, d) and logits (n, c) or None."""


@dataclass(frozen=True)
class LocalModel:
    """One bundle, loaded: an Embedder, FeatureEmbedder and Scorer; safe to use from threads.

    Attributes:
        bundle: What was loaded.
        session: Its graph in onnxruntime.
        head: Its classifier, or None.
        novelty: What gives the OOD score, or None; detectors are a layer of their own, so the
            caller supplies this one.
        precision: Which of the bundle's graphs it is.
    """

    bundle: Bundle
    session: Session
    head: Head | None = None
    novelty: Novelty | None = None
    precision: str = "fp32"

    @property
    def dim(self) -> int:
        """Dimensions of an embedding."""
        return self.session.dim

    @property
    def digest(self) -> str:
        """The model digest, equal to the served model's."""
        return self.session.digest

    @property
    def provider(self) -> str:
        """The onnxruntime execution provider that it runs on."""
        return self.session.provider

    @property
    def input(self) -> InputSpec:
        """What the graph takes; images of any other size are converted."""
        return self.session.input

    def embed(self, images: ImageInput) -> Embeddings:
        """Return L2-normalised embeddings, (n, d) float32, in the order given.

        Args:
            images: uint8 (n, h, w, c) of any size; or one or several arrays, paths, contents
                of image files, or Pillow images.

        Raises:
            InvalidInput: If an image is none of these, or a file cannot be decoded.
            NotFound: If a file does not exist.
        """
        return self._run_all(images, ("embedding",))["embedding"]

    def features(self, images: ImageInput) -> Embeddings:
        """Return features before normalisation, (n, d) float32, in the order given.

        Args:
            images: uint8 (n, h, w, c) of any size; or one or several arrays, paths, contents
                of image files, or Pillow images.

        Raises:
            InvalidInput: If an image is none of these, or a file cannot be decoded.
            NotFound: If a file does not exist.
        """
        return self._run_all(images, ("features",))["features"]

    def score(self, images: ImageInput) -> ImageScores:
        """Return class and novelty of each image, as far as this model has them.

        Args:
            images: As for :meth:`embed`.

        Raises:
            NotFound: If there is neither a head nor something that scores novelty.
            InvalidInput: If an image is none of these, or a file cannot be decoded.
        """
        if self.head is None and self.novelty is None:
            raise NotFound(
                f"expected a head or a detector in {self.bundle.path}, got neither; "
                "export with --head DATA"
            )
        outputs = self._run_all(images, ("embedding", "features"))
        logits = None if self.head is None else self.head.logits(outputs["features"])
        return ImageScores(
            labels=None if logits is None else logits.argmax(axis=1),
            probabilities=None if logits is None else softmax(logits),
            novelty=(
                None
                if self.novelty is None
                else self.novelty(outputs["embedding"], outputs["features"], logits)
            ),
            class_names=() if self.head is None else self.head.class_names,
        )

    def _run_all(self, images: ImageInput, outputs: tuple[str, ...]) -> dict[str, Output]:
        """Outputs of any number of images, 64 at a time."""
        shapes = self.session.outputs
        parts = [{name: np.empty((0, *shapes[name]), np.float32) for name in outputs}]
        for batch in prepared_batches(images, self.session.input, CHUNK_IMAGES):
            parts.append(self.session.run(batch, outputs))
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}


def load(
    path: str | Path,
    *,
    precision: str = "fp32",
    providers: Sequence[str] | None = None,
    threads: int | None = None,
    verify: bool = True,
    novelty: Novelty | None = None,
    allow_cpu_fallback: bool = False,
) -> LocalModel:
    """Load a bundle and check it against its golden embeddings.

    Args:
        path: The directory ``<models>/<name>/<version>``.
        precision: Which graph.
        providers: onnxruntime execution providers, or their short names; by default the CPU.
        threads: Threads for one call, by default one per usable core.
        verify: Compare every file with its digest before; the graph, the head and the golden
            embeddings are compared in any case.
        novelty: What gives the OOD score in :meth:`LocalModel.score`.
        allow_cpu_fallback: Whether a missing provider is replaced by the CPU, with a warning.

    Raises:
        NotFound: If there is no bundle at ``path``, or not in this precision.
        BundleDamaged: If a file is changed, or the golden embeddings come out otherwise.
        InvalidInput: If a provider is missing.
    """
    bundle = Bundle(path, verify=verify)
    session = Session(
        bundle.graph(precision),
        bundle.model_digest(precision),
        bundle.manifest.input,
        providers=providers,
        threads=threads,
        allow_cpu_fallback=allow_cpu_fallback,
    )
    check_golden(session, bundle, precision)
    head = bundle.head() if bundle.names("heads") else None
    if head is not None and head.weight.shape[1] != session.dim:
        raise BundleDamaged(
            f"expected a head on {session.dim} features in {bundle.path}, "
            f"got {head.weight.shape[1]}"
        )
    return LocalModel(bundle, session, head, novelty, precision)


def check_golden(session: Session, bundle: Bundle, precision: str = "fp32") -> float:
    """Compare a session's golden embeddings with the bundle's.

    Returns:
        The largest difference of one coordinate.

    Raises:
        BundleDamaged: If it is above ``GOLDEN_LIMITS`` or the shapes differ.
    """
    golden = bundle.golden(precision)
    limit = GOLDEN_LIMITS[precision]
    if golden.images.shape[1:] != session.input.shape:
        raise BundleDamaged(
            f"expected golden images of {session.input.shape}, got {golden.images.shape[1:]}"
        )
    embeddings = session.embed(golden.images)
    if embeddings.shape != golden.embeddings.shape or bundle.manifest.dim != session.dim:
        raise BundleDamaged(
            f"expected golden embeddings {golden.embeddings.shape} of dimension "
            f"{bundle.manifest.dim}, got {embeddings.shape}"
        )
    error = float(np.abs(embeddings - golden.embeddings).max(initial=0.0))
    if not error <= limit:
        raise BundleDamaged(
            f"expected golden embeddings of {bundle.path} in {precision} within {limit:g}, "
            f"got {error:.3g} on {session.provider}; export again, or use CPUExecutionProvider"
        )
    return error


def softmax(logits: npt.NDArray[np.float32]) -> Probabilities:
    """Return (n, c) probabilities of (n, c) logits; each row sums to 1."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)
