"""What a trial attacks: the images that a model's decision handles, for each kind of head."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.detect.detector import load_detector
from embedkit.detect.threshold import Threshold
from embedkit.errors import EmbedkitError, InvalidInput, NotFound
from embedkit.evaluate.attack import Target, subset
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.novelty.observing import Observer
from embedkit.evaluate.measurement.trial.attacking import Trial
from embedkit.evaluate.measurement.victim.channel import through
from embedkit.evaluate.measurement.victim.heads import (
    CosineHead,
    Keeper,
    LinearHead,
    OodHead,
    Search,
    SearchHead,
)
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.oracle import VictimHead
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.measures.knn import nearest
from embedkit.types import Embeddings

__all__ = ["HEADS", "heads_of", "prepare_trial", "served_search"]

HEADS = ("knn", "linear", "cosine", "search", "ood")
"""The decisions that can be attacked."""

GALLERY = 5000
"""Training images among which a search looks, a seeded choice."""

Output = Literal["embedding", "features"]


@dataclass(frozen=True)
class _Decision:
    """One kind of decision.

    Attributes:
        output: What it is made from.
        dataset: The images it is about.
        head_for: From the clean outputs (m, d) of the images at some positions (m,) to the head
            about these.
    """

    output: Output
    dataset: Dataset
    head_for: Callable[[Embeddings, npt.NDArray[np.int64]], VictimHead]


def heads_of(context: Context) -> tuple[str, ...]:
    """The heads that are attacked here: ``ood`` stands for the known images and each OOD set.

    Raises:
        InvalidInput: If one is unknown.
    """
    found: list[str] = []
    for name in context.options.heads:
        if name not in HEADS:
            raise InvalidInput(f"expected a head of {', '.join(HEADS)}, got {name!r}")
        found += ["ood_known", *(f"ood_{s}" for s in context.ood)] if name == "ood" else [name]
    return tuple(dict.fromkeys(found))


def prepare_trial(
    context: Context,
    which: Which,
    *,
    head: str = "knn",
    surrogate: TorchEmbedder | None = None,
    search: Search | None = None,
) -> Trial:
    """Examine the first images of a seeded order; their number does not depend on results.

    Stopping at the n-th success instead would make the accuracy look better than it is.

    Args:
        context: Data, settings and models; ``knn`` and ``linear`` need labels.
        which: The model under attack.
        head: One of ``heads_of``.
        surrogate: Its differentiable twin, or None.
        search: How the head ``search`` looks among its gallery; None is exact, in memory.

    Raises:
        InvalidInput: If the model handles none of the images correctly.
        NotFound: If the context has no such model, or not what the head needs.
    """
    if head == "search":
        decision = _search(context, which, search)
    else:
        decision = _DECISIONS[head.split("_", maxsplit=1)[0]](context, which, head)
    options, model = context.options, context.embedder(which)
    order = np.random.default_rng(context.seed).permutation(len(decision.dataset))
    positions = order[: options.attack_images]
    examined = decision.dataset.subset(positions)
    images = examined.arrays(context.spec)
    plain = through(model, output=decision.output)
    victim = through(
        model,
        output=decision.output,
        encoding=options.encoding,
        quality=options.jpeg_quality,
    )
    # As pixels, also where the test images are files: what is attacked is what was handled.
    clean = victim.embed(images)
    everything = decision.head_for(clean, positions)
    handled = everything.margins(clean, np.arange(len(clean))) > 0
    if not handled.any():
        raise InvalidInput(
            f"expected test images that {which} handles correctly, got none of {len(handled)}"
        )
    rows = np.flatnonzero(handled)
    ids = tuple(str(examined.ids[i]) for i in rows)
    own = None if surrogate is None else surrogate.giving(decision.output)
    only = subset(everything, rows)
    return Trial(
        only,
        Target(victim, only, images[handled], ids, own),
        clean[handled],
        positions,
        handled,
        plain if which == "served" else None,
        options.jpeg_quality,
    )


def _knn(context: Context, which: Which, _: str) -> _Decision:
    bank = context.embeddings(which, context.train)
    labels = np.asarray(context.test.labels)
    known = np.asarray(context.train.labels)
    return _Decision("embedding", context.test, lambda _, p: KnnHead(bank, known, labels[p]))


def _linear(context: Context, which: Which, _: str) -> _Decision:
    """The bundle's head where its classes are those of the data, else a probe fitted here."""
    head = Observer(context, which).head
    if head.class_names != context.train.class_names:
        raise NotFound(
            f"expected a head with the classes {list(context.train.class_names)[:5]}..., got "
            f"{list(head.class_names)[:5]}..."
        )
    labels = np.asarray(context.test.labels)
    return _Decision("features", context.test, lambda _, p: LinearHead(head, labels[p]))


def _cosine(context: Context, which: Which, _: str) -> _Decision:
    del which
    return _Decision("embedding", context.test, lambda clean, _: CosineHead(clean))


@contextmanager
def served_search(context: Context, head: str, warnings: list[str]) -> Iterator[Search | None]:
    """The served model's own search among the gallery, in a collection that it drops again.

    Yields:
        None for other heads, for models without collections and, with a warning, where the
        collection cannot be made: then the search is exact, in memory.
    """
    served = context.served
    if head != "search" or not isinstance(served, Keeper):
        yield None
        return
    with ExitStack() as stack:
        search = None
        try:
            search = stack.enter_context(served.stored(_gallery(context, "served")))
        except EmbedkitError as error:
            warnings.append(f"search: exact in memory instead of served: {error}")
        yield search


def _gallery(context: Context, which: Which) -> Embeddings:
    rows = np.random.default_rng(context.seed).permutation(len(context.train))[:GALLERY]
    return context.embeddings(which, context.train)[np.sort(rows)]


def _search(context: Context, which: Which, search: Search | None) -> _Decision:
    """An image should find what it finds when clean."""
    gallery, k = _gallery(context, which), context.options.search_places

    def head(clean: Embeddings, _: npt.NDArray[np.int64]) -> SearchHead:
        wanted, _cosines = nearest(gallery, clean, min(k, len(gallery)))
        return SearchHead(gallery, wanted, k, search)

    return _Decision("embedding", context.test, head)


def _ood(context: Context, which: Which, name: str) -> _Decision:
    """The bundle's detector at the bundle's threshold, as the server uses them."""
    bundle = context.bundle
    if bundle is None or not bundle.names("detectors"):
        raise NotFound(
            "expected a bundle with a detector, got "
            f"{context.without_bundle if bundle is None else bundle.path}; "
            "embedkit bundle fit writes one"
        )
    detector_name = bundle.names("detectors")[0]
    arrays = bundle.arrays(f"detectors/{detector_name}.npz")
    threshold = Threshold.from_arrays(arrays)
    if threshold is None:
        raise NotFound(f"expected a threshold beside the detector {detector_name}, got none")
    detector = load_detector(detector_name, arrays)
    logits = Observer(context, which).head if "logits" in detector.needs else None
    kind = name.split("_", 1)[1]
    dataset = context.test if kind == "known" else context.ood[kind]

    def head(_: Embeddings, positions: npt.NDArray[np.int64]) -> OodHead:
        known = np.full(len(positions), kind == "known")
        return OodHead(detector, threshold.value, logits, known)

    needed: Output = "embedding" if detector.needs <= {"embeddings"} else "features"
    return _Decision(needed, dataset, head)


_DECISIONS: dict[str, Callable[[Context, Which, str], _Decision]] = {
    "knn": _knn,
    "linear": _linear,
    "cosine": _cosine,
    "ood": _ood,
}
