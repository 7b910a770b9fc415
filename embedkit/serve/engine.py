"""All loaded models, found by name and version."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embedkit.bundle import find_bundle, latest_bundles
from embedkit.errors import DeadlineExceeded, InvalidInput, NotFound
from embedkit.runtime.local import load
from embedkit.serve.answer import Query
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.decode import DEFAULT_MAX_PIXELS, Decoder
from embedkit.serve.loaded import LoadedModel
from embedkit.serve.observe.logs import event
from embedkit.serve.observe.record import BatchRecord
from embedkit.types import Embeddings, EncodedImages, Images

__all__ = ["Engine", "EngineConfig", "choose_bundles"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineConfig:
    """How models run.

    Attributes:
        limits: Sizes of each model's line and batches.
        threads: Threads of each session; 0 takes one per core that this process may use.
        decode_threads: Image files decoded at a time; 0 likewise.
        max_pixels: An image file that declares more is refused.
    """

    limits: BatchLimits = field(default_factory=BatchLimits)
    threads: int = 0
    decode_threads: int = 0
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidInput: If one is negative.
        """
        if min(self.threads, self.decode_threads, self.max_pixels) < 0:
            raise InvalidInput(f"expected thread and pixel limits of at least 0, got {self}")


class Engine:
    """Loads models and answers for them.

    Args:
        config: How models run.
        observe: Called after each batch, on the model's thread.
    """

    def __init__(
        self,
        config: EngineConfig | None = None,
        observe: Callable[[BatchRecord], None] | None = None,
    ) -> None:
        self.config = config or EngineConfig()
        cores = len(os.sched_getaffinity(0))
        self._threads = self.config.threads or cores
        self._decoder = Decoder(
            self.config.decode_threads or cores, max_pixels=self.config.max_pixels
        )
        self._observe = observe
        self._models: dict[tuple[str, str], LoadedModel] = {}
        self._latest: dict[str, LoadedModel] = {}

    @property
    def models(self) -> tuple[LoadedModel, ...]:
        """Every loaded version, by name, then by version."""
        return tuple(self._models[key] for key in sorted(self._models))

    def load(self, path: Path) -> LoadedModel:
        """Load the bundle in a directory: digests, golden embeddings, warm-up.

        Raises:
            NotFound, BundleDamaged: If it is none, or not what its manifest says.
        """
        began = time.monotonic()
        local = load(path, threads=self._threads)
        model = LoadedModel(local, self._decoder, self.config.limits, self._observe)
        self._models[model.name, model.version] = model
        latest = self._latest.get(model.name)
        if latest is None or int(latest.version) <= int(model.version):
            self._latest[model.name] = model
        event(
            log,
            logging.INFO,
            "loaded",
            model=model.name,
            version=model.version,
            provider=model.provider,
            threads=self._threads,
            seconds=round(time.monotonic() - began, 3),
        )
        return model

    def get(self, name: str = "", version: str = "") -> LoadedModel:
        """Find a loaded model.

        Args:
            name: May be empty where one model is loaded.
            version: Empty for the latest that is loaded.

        Raises:
            NotFound: If it is not loaded.
            InvalidInput: If ``name`` is empty and several models are loaded.
        """
        if not name:
            name = self._only_name()
        model = self._models.get((name, version)) if version else self._latest.get(name)
        if model is None:
            known = [f"{m.name}:{m.version}" for m in self.models]
            raise NotFound(f"expected one of the loaded models {known}, got {name}:{version}")
        return model

    def embed(
        self, model: str, images: Images | EncodedImages, timeout_s: float | None = None
    ) -> tuple[Embeddings, str]:
        """Return embeddings and the digest of the model that made them.

        Args:
            model: Name; may be empty where one model is loaded.
            images: uint8 (n, h, w, c) of any size, or image files.
            timeout_s: Seconds from now, or None.

        Raises:
            BadImage: For the first image that cannot be used; nothing is returned then.
            EmbedkitError: As ``get`` and ``LoadedModel.infer``.
        """
        loaded = self.get(model)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        answer = loaded.infer(Query(images, deadline=deadline))
        for index in sorted(answer.errors):
            raise answer.errors[index]
        return np.asarray(answer.rows["embedding"], np.float32), loaded.digest

    def close(self, timeout_s: float | None = None) -> None:
        """Finish what is queued and end all threads.

        Raises:
            DeadlineExceeded: If a model did not finish within ``timeout_s`` seconds.
        """
        stuck = [m.name for m in self.models if not m.stop(timeout_s)]
        self._decoder.close()
        if stuck:
            raise DeadlineExceeded(f"expected all models to stop in {timeout_s} s, got {stuck}")

    def _only_name(self) -> str:
        if len(self._latest) != 1:
            raise InvalidInput(
                f"expected a model name, one of {sorted(self._latest)}, got an empty name"
            )
        return next(iter(self._latest))


def choose_bundles(models: Path, names: Sequence[str]) -> list[Path]:
    """Return the bundle directories to serve.

    Args:
        models: The folder of all models.
        names: ``NAME`` or ``NAME:VERSION`` each; empty for the latest of every model.

    Raises:
        NotFound: If one does not exist.
    """
    if not names:
        return list(latest_bundles(models).values())
    wanted = (text.partition(":") for text in names)
    return [find_bundle(models, name, version or None) for name, _, version in wanted]
