"""All loaded models, found by name and version."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embedkit.bundle import Bundle, find_bundle, latest_bundles
from embedkit.errors import (
    BundleDamaged,
    DeadlineExceeded,
    EmbedkitError,
    InvalidInput,
    NotFound,
    Unavailable,
)
from embedkit.runtime.cores import usable_cores
from embedkit.runtime.local import load
from embedkit.serve.answer import Query, items_of
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.decode import DEFAULT_MAX_PIXELS, Decoder
from embedkit.serve.loaded import LoadedModel
from embedkit.serve.observe.logs import event
from embedkit.serve.observe.record import BatchRecord, ItemsRecord
from embedkit.types import Embeddings, EncodedImages, Images

__all__ = ["Engine", "EngineConfig", "choose_bundles"]

log = logging.getLogger(__name__)

# Characters of a name in an error; longer ones are nobody's.
_MAX_NAME = 64


@dataclass(frozen=True)
class EngineConfig:
    """How models run.

    Attributes:
        limits: Sizes of each model's line and batches.
        threads: Threads of each session; 0 shares the cores that this process may use among
            the sessions.
        decode_threads: Image files decoded at a time; 0 takes one per such core.
        max_pixels: An image file that declares more is refused.
        sessions: Batches of one model that run at the same time, each in a session of its own.
        provider: ``cpu``, ``cuda``, ``tensorrt``, or onnxruntime's name of a provider.
        allow_cpu_fallback: Whether the CPU takes the place of a provider that is missing.
        precision: Which graph of each bundle runs: ``fp32``, ``fp16`` or ``int8``.
    """

    limits: BatchLimits = field(default_factory=BatchLimits)
    threads: int = 0
    decode_threads: int = 0
    max_pixels: int = DEFAULT_MAX_PIXELS
    sessions: int = 1
    provider: str = "cpu"
    allow_cpu_fallback: bool = False
    precision: str = "fp32"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidInput: If one is negative, or there is no session.
        """
        if self.sessions < 1:
            raise InvalidInput(f"expected at least 1 session, got {self.sessions}")
        if min(self.threads, self.decode_threads, self.max_pixels) < 0:
            raise InvalidInput(f"expected thread and pixel limits of at least 0, got {self}")


class Engine:
    """Loads models and answers for them.

    Args:
        config: How models run.
        observe: Called after each batch, on the model's thread.

    Attributes:
        threads: Threads of each session.
        decode_threads: Image files decoded at a time.
    """

    def __init__(
        self,
        config: EngineConfig | None = None,
        observe: Callable[[BatchRecord], None] | None = None,
    ) -> None:
        self.config = config or EngineConfig()
        cores = usable_cores()
        self.threads = self.config.threads or max(1, cores // self.config.sessions)
        self.decode_threads = self.config.decode_threads or cores
        self._decoder = Decoder(self.decode_threads, max_pixels=self.config.max_pixels)
        self._observe = observe
        # Replaced as a whole, so that callers see one moment of it and need no lock.
        self._table = _Table({}, {})
        self._loading, self._changing = threading.Lock(), threading.Lock()
        self._is_closed = False

    @property
    def models(self) -> tuple[LoadedModel, ...]:
        """Every loaded version, by name, then by version."""
        return tuple(self._table.models.values())

    def load(self, path: Path) -> LoadedModel:
        """Load the bundle in a directory: digests, golden embeddings, warm-up.

        Calls go on meanwhile with what is loaded; once all is well, and not before, the new
        model is found. One of the same name and version is replaced: whoever holds it already
        is answered by it, and it ends when nobody does any more.

        Raises:
            NotFound: If it is none, or has no graph in the wanted precision.
            BundleDamaged: If it is not what its manifest says.
            InvalidInput: If the provider is missing and the CPU may not take its place.
            Unavailable: If the engine was closed meanwhile.
        """
        with self._loading:  # one at a time: each needs memory and the cores
            return self._load(path)

    def _load(self, path: Path) -> LoadedModel:
        began = time.monotonic()
        config = self.config
        local = load(
            path,
            precision=config.precision,
            providers=[config.provider],
            threads=self.threads,
            allow_cpu_fallback=config.allow_cpu_fallback,
        )
        _check_place(path, local.bundle)
        model = LoadedModel(
            local, self._decoder, config.limits, self._observe, sessions=config.sessions
        )
        with self._changing:
            is_closed = self._is_closed
            if not is_closed:
                self._table = self._table.with_model(model)
        if is_closed:
            model.stop()
            raise Unavailable("the server is shutting down; nothing is loaded any more")
        event(
            log,
            logging.INFO,
            "loaded",
            model=model.name,
            version=model.version,
            precision=model.precision,
            provider=model.provider,
            sessions=config.sessions,
            threads=self.threads,
            decode_threads=self.decode_threads,
            prefetch=model.crew.is_prefetching,
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
        table = self._table
        model = table.models.get((name, version)) if version else table.latest.get(name)
        if model is None:
            raise self._not_found(name, version)
        return model

    def unload(self, name: str, version: str = "") -> LoadedModel:
        """Give a version up: from now on nobody finds it, whoever holds it is answered by it.

        Its threads and its memory end when nobody holds it any more, the one who calls this
        included.

        Args:
            name: Of the model.
            version: May be empty where one version is loaded.

        Raises:
            NotFound: If it is not loaded.
            InvalidInput: If ``version`` is empty and several are loaded.
        """
        with self._changing:
            found = [m for m in self.models if m.name == name and version in ("", m.version)]
            if not found:
                raise self._not_found(name, version)
            if len(found) > 1:
                known = [m.version for m in found]
                raise InvalidInput(
                    f"expected one of the versions {known} of {name!r}, got none"
                )
            self._table = self._table.without(found[0])
        event(log, logging.INFO, "unloaded", model=name, version=found[0].version)
        return found[0]

    def embed(
        self,
        model: str,
        images: Images | EncodedImages,
        timeout_s: float | None = None,
        *,
        watch: Callable[[Callable[[], None]], bool] | None = None,
        count_items: Callable[[ItemsRecord], None] | None = None,
    ) -> tuple[Embeddings, str]:
        """Return embeddings and the digest of the model that made them.

        Args:
            model: Name; may be empty where one model is loaded.
            images: uint8 (n, h, w, c) of any size, or image files.
            timeout_s: Seconds from now, or None.
            watch: As ``Query.watch``.
            count_items: Called with the images of the answer, bad ones among them.

        Raises:
            BadImage: For the first image that cannot be used; nothing is returned then.
            EmbedkitError: As ``get`` and ``LoadedModel.infer``.
        """
        loaded = self.get(model)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        answer = loaded.infer(Query(images, deadline=deadline, watch=watch))
        if count_items is not None:
            count_items(items_of(loaded.name, len(images), answer))
        for index in sorted(answer.errors):
            error = answer.errors[index]
            kind = type(error) if isinstance(error, EmbedkitError) else EmbedkitError
            raise kind(f"image {index}: {error}") from error
        return np.asarray(answer.rows["embedding"], np.float32), loaded.digest

    def close(self, timeout_s: float | None = None) -> None:
        """Finish what is queued and end all threads.

        Raises:
            DeadlineExceeded: If a model did not finish within ``timeout_s`` seconds.
        """
        with self._changing:
            self._is_closed = True
        stuck = [m.name for m in self.models if not m.stop(timeout_s)]
        self._decoder.close()
        if stuck:
            raise DeadlineExceeded(f"expected all models to stop in {timeout_s} s, got {stuck}")

    def _only_name(self) -> str:
        names = self._table.latest
        if len(names) != 1:
            raise InvalidInput(
                f"expected a model name, one of {sorted(names)}, got an empty name"
            )
        return next(iter(names))

    def _not_found(self, name: str, version: str) -> NotFound:
        known = [f"{m.name}:{m.version}" for m in self.models]
        got = name[:_MAX_NAME] + (f":{version[:_MAX_NAME]}" if version else "")
        return NotFound(f"expected one of the loaded models {known}, got {got!r}")


class _Table(NamedTuple):
    """What is loaded at one moment."""

    models: Mapping[tuple[str, str], LoadedModel]
    latest: Mapping[str, LoadedModel]

    def with_model(self, model: LoadedModel) -> "_Table":
        """The table with a model more, or with one in another's place."""
        return _table({**self.models, (model.name, model.version): model})

    def without(self, model: LoadedModel) -> "_Table":
        """The table with one model less."""
        key = model.name, model.version
        return _table({k: m for k, m in self.models.items() if k != key})


def _table(models: Mapping[tuple[str, str], LoadedModel]) -> _Table:
    order = sorted(models, key=lambda key: (key[0], int(key[1])))
    ordered = {key: models[key] for key in order}
    # The last one of a name is its highest version.
    return _Table(ordered, {name: model for (name, _), model in ordered.items()})


def _check_place(path: Path, bundle: Bundle) -> None:
    """Refuse a bundle that lies where another one is looked for."""
    place, is_really = (
        path.absolute().parts[-2:],
        (bundle.manifest.name, str(bundle.manifest.version)),
    )
    if place != is_really:
        raise BundleDamaged(
            f"expected the bundle {':'.join(place)} in {path}, got {':'.join(is_really)}; its "
            f"folder has to be {'/'.join(is_really)}: move it there, or export it anew with "
            "--name"
        )


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
