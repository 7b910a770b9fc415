"""Context: everything a task may look at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from embedkit.bundle import Bundle
from embedkit.data.dataset import Dataset
from embedkit.errors import InvalidInput, NotFound
from embedkit.evaluate.threat import ThreatNorm
from embedkit.preprocess import InputSpec
from embedkit.runtime.environment import code_digest
from embedkit.runtime.features import FeatureCache, Output, RawPixels
from embedkit.types import Embedder, Embeddings, EncodedImages, FeatureEmbedder, Images

__all__ = ["BASELINES", "Context", "Options", "Which"]

Which = Literal["served", "local", "twin", "raw_pixels", "random_encoder"]

CHUNK = 2048
"""Images per embed call: large enough for a client to keep several messages in flight."""

BASELINES: tuple[Which, ...] = ("raw_pixels", "random_encoder")


@dataclass(frozen=True)
class Options:
    """Sizes and limits of a run; the command line sets them.

    Attributes:
        attack_images: Test images examined for attacks, the first ones of a seeded order; those
            that the model handles correctly are attacked.
        attacks: Attacks by name.
        heads: Decisions attacked: ``knn``, ``linear``, ``cosine``, ``search``, ``ood``.
        norms: Kinds of change: ``linf``, ``l2``, ``patch``.
        pgd_steps: Steps of the white-box attacks.
        square_queries: Queries per image of the black-box attacks.
        radii_255: Linf radii in steps of 1/255.
        l2_radii_255: L2 radii in steps of 1/255.
        patch_sides_px: Sides of a patch in pixels.
        encoding: How attacked images are sent: ``uint8`` pixels, ``png`` or ``jpeg`` files.
        jpeg_quality: Of those files, and of the files that successes are sent as once more.
        search_places: Places of a search result that are attacked.
        attack_checks: Whether further runs check that the white-box attacks are strong.
        parity_images: Test images compared between the runtimes.
        detectors: OOD detectors that are fitted.
        probe_images: Training images of the linear probe, a seeded choice with every class in
            proportion; 0 takes all.
        shots: Training images per class of the few-shot probe.
        shot_draws: Draws of those images.
        view_images: Test images of which changed versions are embedded.
        corruptions: Corruptions by name, or sets of them: ``common``, ``validation``,
            ``mnist_c``, ``system``.
        corruption_images: Test images that are corrupted, a seeded choice; 0 takes all.
        severities: Severities, 1 to 5.
        certified_images: Test images that are certified, the first ones of a seeded order.
        certified_sigmas_255: Standard deviations of the noise in steps of 1/255.
        certified_radii_255: L2 distances that are asked about, in steps of 1/255.
        certified_select: Noisy copies that choose what is certified.
        certified_estimate: Further noisy copies that certify it.
        certified_alpha: Probability that one certificate is wrong.
        latency_calls: Timed calls per size of call.
        drift_streams: Streams of images that are drawn of each set, to see whether and when
            a change is noticed.
        map_points: Test images in the 2-D map.
        grid_rows: Test images in a picture grid.
        baselines: Whether the baselines are measured too; with many training images, raw
            pixels take longer than the model.
    """

    attack_images: int = 200
    attacks: tuple[str, ...] = ("pgd", "square")
    heads: tuple[str, ...] = ("knn",)
    norms: tuple[ThreatNorm, ...] = ("linf",)
    pgd_steps: int = 40
    square_queries: int = 500
    radii_255: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    l2_radii_255: tuple[float, ...] = (32.0, 64.0, 128.0)
    patch_sides_px: tuple[int, ...] = (2, 4, 8)
    encoding: Literal["uint8", "png", "jpeg"] = "uint8"
    jpeg_quality: int = 75
    search_places: int = 10
    attack_checks: bool = True
    parity_images: int = 256
    detectors: tuple[str, ...] = ("knn", "mahalanobis")
    probe_images: int = 10_000
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    shot_draws: int = 10
    view_images: int = 500
    corruptions: tuple[str, ...] = ("common",)
    corruption_images: int = 200
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    certified_images: int = 40
    certified_sigmas_255: tuple[float, ...] = (32.0,)
    certified_radii_255: tuple[float, ...] = (8.0, 16.0, 32.0)
    certified_select: int = 200
    certified_estimate: int = 500
    certified_alpha: float = 0.001
    latency_calls: int = 100
    drift_streams: int = 40
    map_points: int = 1000
    grid_rows: int = 8
    baselines: bool = True


def _silent(message: str, done: float) -> None:
    """The progress callback of a run that shows none."""


@dataclass(frozen=True)
class Context:
    """The models, the data and the settings of one evaluation.

    Attributes:
        served: The model that is measured: usually behind gRPC.
        train: In-distribution images that a task may fit on.
        test: In-distribution images that are scored; same class indices as ``train``.
        ood: Data sets that should look novel, by name.
        near: Names of the ``ood`` sets that resemble the known images; none says nothing.
        far: Names of those that do not.
        shifted: Known images of the same classes that look otherwise, by name.
        bundle: The served model's own bundle, or None.
        local: The same graph in a session of this process, or None.
        without_bundle: Why there is no bundle; tasks that need one give this as the reason.
        seed: Root of every random choice.
        options: Sizes and limits.
        cache: Embeddings that were already computed.
        progress: Called with a line and the fraction of the task that is done.
    """

    served: Embedder
    train: Dataset
    test: Dataset
    ood: Mapping[str, Dataset] = field(default_factory=dict)
    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    shifted: Mapping[str, Dataset] = field(default_factory=dict)
    bundle: Bundle | None = None
    local: Embedder | None = None
    without_bundle: str = "no bundle was given"
    seed: int = 0
    options: Options = field(default_factory=Options)
    cache: FeatureCache = field(default_factory=FeatureCache)
    progress: Callable[[str, float], None] = _silent

    @property
    def spec(self) -> InputSpec:
        """What the model takes: from the bundle, the server, or the shape of the test images.

        Raises:
            NotFound: If none of the three says so.
        """
        if self.bundle is not None:
            return self.bundle.manifest.input
        stated = getattr(self.served, "input", None)
        if isinstance(stated, InputSpec):
            return stated
        shape = self.test.image_shape
        if shape is None:
            raise NotFound("expected the model's input size, got a model that states none")
        return InputSpec(*shape)

    @property
    def baselines(self) -> tuple[Which, ...]:
        """The baselines that the run wants."""
        return BASELINES if self.options.baselines else ()

    def embeddings(self, which: Which, dataset: Dataset) -> Embeddings:
        """Return (n, d) unit vectors of a data set, computed once per model.

        Args:
            which: ``served`` sends the images as they are; ``raw_pixels`` are the prepared
                pixels scaled to unit length; ``random_encoder`` is the untrained twin.
            dataset: Any of the context's data sets, or a subset of one.

        Raises:
            NotFound: If the model asked for is not there.
        """
        embedder = self.embedder(which)
        return self._cached(which, embedder, dataset, "embedding", embedder.embed)

    def features(self, which: Which, dataset: Dataset) -> Embeddings:
        """Return (n, d) features before normalisation.

        Raises:
            NotFound: If the model is not there or gives no features.
        """
        embedder = self.embedder(which)
        if not isinstance(embedder, FeatureEmbedder):
            raise NotFound(f"expected a model with features, got {which} without them")
        return self._cached(which, embedder, dataset, "features", embedder.features)

    def embedder(self, which: Which) -> Embedder:
        """Return one of the models.

        Raises:
            NotFound: If it is not there; the message has the reason.
            InvalidInput: If there is no model of that name.
        """
        if which == "served":
            return self.served
        if which in BASELINES and not self.options.baselines:
            raise NotFound(f"expected the baseline {which}, got a run without baselines")
        if which == "raw_pixels":
            return RawPixels(self.spec)
        if which == "random_encoder":
            return self._random_twin
        if which == "twin":
            return self._twin
        if which != "local":
            raise InvalidInput(f"expected one of {Which}, got {which!r}")
        if self.local is None:
            raise NotFound(f"expected a local session, got none: {self.without_bundle}")
        return self.local

    @cached_property
    def _twin(self) -> Embedder:
        from embedkit.evaluate.surrogate import twin

        return twin(self._need_bundle())

    @cached_property
    def _random_twin(self) -> Embedder:
        from embedkit.evaluate.surrogate import random_twin

        return random_twin(self._need_bundle(), self.seed)

    def _need_bundle(self) -> Bundle:
        if self.bundle is None:
            raise NotFound(f"expected the model's bundle, got none: {self.without_bundle}")
        return self.bundle

    def _cached(
        self,
        which: Which,
        embedder: Embedder,
        dataset: Dataset,
        output: Output,
        embed: Callable[[Images | EncodedImages], Embeddings],
    ) -> Embeddings:
        def compute() -> Embeddings:
            parts = []
            for start in range(0, len(dataset), CHUNK):
                self.progress(f"{which}: {dataset.name}", start / len(dataset))
                parts.append(embed(dataset.images[start : start + CHUNK]))
            return np.concatenate(parts)

        # Another provider or another code may answer otherwise: neither stands in for this one.
        how = (type(embedder).__name__, getattr(embedder, "provider", ""), code_digest())
        # Pixels are large, and made again in less time than they are read from a disk.
        keep, n = which != "raw_pixels", len(dataset)
        return self.cache.get(
            " ".join((which, embedder.digest, *how)),
            dataset.digest,
            output,
            n,
            compute,
            on_disk=keep,
            label=f"{which} {output} of {dataset.name}",
        )
