"""Arrays with their axes in the type, and the protocols that stages meet at.

Axes: ``n`` images, ``h w`` pixels, ``c`` channels (of an image) or classes (of scores), ``d``
dimensions, ``k`` neighbours. Type checkers see the plain array.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = [
    "Collection",
    "CollectionLimits",
    "DuplicatePage",
    "Embedder",
    "Embeddings",
    "EncodedImages",
    "FeatureEmbedder",
    "Hit",
    "HitGroup",
    "ImageScores",
    "Images",
    "IndexState",
    "Labels",
    "Metered",
    "Metric",
    "Pair",
    "Pixels",
    "Probabilities",
    "RangeHits",
    "Record",
    "Scorer",
    "Scores",
    "SearchParams",
    "Searcher",
    "Usage",
    "Verification",
]

Images = Annotated[npt.NDArray[np.uint8], "n h w c"]
"""A batch of decoded images, channels last, uint8."""

Pixels = Annotated[npt.NDArray[np.uint8], "h w c"]
"""One decoded image."""

EncodedImages = Sequence[bytes]
"""Image files (JPEG, PNG, WebP, ...), one ``bytes`` object each."""

Embeddings = Annotated[npt.NDArray[np.float32], "n d"]
"""One vector per image; L2-normalised unless said otherwise."""

Labels = Annotated[npt.NDArray[np.int64], "n"]
"""Class index of each image, 0-based."""

Scores = Annotated[npt.NDArray[np.float64], "n"]
"""One number per image; for novelty, higher is more novel."""

Probabilities = Annotated[npt.NDArray[np.float32], "n c"]
"""Class probabilities of each image; rows sum to 1."""


@runtime_checkable
class Embedder(Protocol):
    """Anything that turns images into embeddings: a torch twin, a session, a served model."""

    @property
    def dim(self) -> int:
        """Dimensions of an embedding."""
        ...

    @property
    def digest(self) -> str:
        """The model digest, ``sha256:...``; equal digests mean equal graph and input block."""
        ...

    def embed(self, images: Images | EncodedImages) -> Embeddings:
        """Return L2-normalised float32 embeddings, (n, d), in the order given.

        Raises:
            InvalidInput: If the images are not uint8 (n, h, w, c), or a file cannot be decoded.
        """
        ...


@runtime_checkable
class FeatureEmbedder(Protocol):
    """An Embedder that also gives the features before normalisation."""

    def features(self, images: Images | EncodedImages) -> Embeddings:
        """Return features before L2 normalisation, (n, d) float32."""
        ...


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes:
        id: The id given at upsert.
        score: Similarity, higher is better for every metric.
        payload: The JSON object stored with the vector, or None if not asked for.
        vector: (d,) float32, or None if not asked for.
    """

    id: str
    score: float
    payload: dict[str, object] | None = None
    vector: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class HitGroup:
    """Hits that have one value of a payload key in common.

    Attributes:
        value: Text, number or boolean.
        hits: Best first.
    """

    value: str | int | float | bool
    hits: list[Hit]


@dataclass(frozen=True)
class RangeHits:
    """Everything within a score of one query.

    Attributes:
        hits: Best first.
        cut: Whether a limit left out some.
    """

    hits: list[Hit]
    cut: bool


@dataclass(frozen=True)
class Pair:
    """Two items of a collection that are within a score.

    Attributes:
        first: Id of the one that was written before the other.
        second: Id of the other.
        score: Similarity, higher is better for every metric.
    """

    first: str
    second: str
    score: float


@dataclass(frozen=True)
class DuplicatePage:
    """Some of the near-duplicate pairs of a collection.

    Attributes:
        pairs: May be none on a page that is not the last.
        exact: Whether the index missed none.
        cut: Whether an item has more neighbours within the score than were looked at.
    """

    pairs: list[Pair]
    exact: bool
    cut: bool


Metric = Literal["cosine", "inner_product", "l2"]
"""How a collection compares vectors; the score of ``l2`` is minus the squared distance."""


@dataclass(frozen=True)
class CollectionLimits:
    """What a collection may hold, fixed when it is made; 0 leaves it to the server.

    Attributes:
        vectors: Most vectors at a time.
        payload_bytes: UTF-8 bytes of one payload, at most.
    """

    vectors: int = 0
    payload_bytes: int = 0


@dataclass(frozen=True)
class IndexState:
    """How the index of a collection stands.

    Searches always see the last write: what is not in the built part is compared one by one.

    Attributes:
        kind: What searches go through now; ``flat`` until another kind has been built.
        is_building: Whether a build is under way or waits for its turn.
        sequence: Number of the last write that the built part reflects; the collection's own
            where everything is compared one by one.
        indexed: Vectors in the built part, removed ones included.
        tail: Vectors outside it.
        removed: Vectors in it that cannot be found any more.
        memory_bytes: Of vectors, codes, links, ids and slots.
        builds: Indexes built since the server opened the collection.
        error: Why the last build or its file failed; empty if it did not.
    """

    kind: str
    is_building: bool = False
    sequence: int = 0
    indexed: int = 0
    tail: int = 0
    removed: int = 0
    memory_bytes: int = 0
    builds: int = 0
    error: str = ""


@dataclass(frozen=True)
class Collection:
    """A named set of vectors of one dimension, and what fills it.

    Attributes:
        name: Letters, digits and ``._-``.
        dim: Dimensions of every vector.
        metric: How vectors are compared.
        kind: The kind of index: ``auto`` (by size), ``flat``, ``ivf_flat``, ``hnsw``, ``sq8``
            or ``pq``.
        model: Name of the model that embeds its images; empty for vectors alone.
        model_digest: Digest of that model, or empty until a write states one.
        count: Vectors in it.
        sequence: Number of the last committed write; 0 before the first.
        storage: How vectors are kept: ``float32`` (bit for bit), ``float16`` or ``int8``.
        limits: What it may hold.
        index: How its index stands; None where that was not asked.
    """

    name: str
    dim: int
    metric: Metric = "cosine"
    kind: str = "auto"
    model: str = ""
    model_digest: str = ""
    count: int = 0
    sequence: int = 0
    storage: str = "float32"
    limits: CollectionLimits = CollectionLimits()
    index: IndexState | None = field(default=None, compare=False)


@dataclass(frozen=True)
class SearchParams:
    """How hard an index tries, for one request; the index's own choice where None.

    Attributes:
        exact: Compare every vector, whatever the kind.
        recall_target: Share of the true neighbours to find, a fraction in (0, 1].
        nprobe: Clusters that an inverted-file index looks through, at least 1.
        ef: Candidates that a graph index keeps, at least 1.
    """

    exact: bool = False
    recall_target: float | None = None
    nprobe: int | None = None
    ef: int | None = None


@dataclass(frozen=True)
class Record:
    """One vector of a collection with what was stored beside it.

    Attributes:
        id: The id given at upsert.
        vector: (d,) float32, bit for bit as given; None if not asked for.
        payload: The JSON object, or None if none was given.
        sequence: Number of the write that stored it.
    """

    id: str
    vector: npt.NDArray[np.float32] | None
    payload: dict[str, object] | None
    sequence: int


@dataclass(frozen=True)
class Verification:
    """What a comparison of a collection's rows with its index found.

    Attributes:
        sequence: Number of the last write that both reflect.
        vectors: Vectors compared.
        problems: What is wrong, one sentence each; empty if all is well.
    """

    sequence: int
    vectors: int
    problems: tuple[str, ...]


@runtime_checkable
class Searcher(Protocol):
    """Nearest-neighbour search over a named collection."""

    def search(
        self,
        collection: str,
        *,
        vectors: Embeddings | None = None,
        images: Images | EncodedImages | None = None,
        k: int = 10,
    ) -> list[list[Hit]]:
        """Return the best ``k`` hits per query, best first."""
        ...


@dataclass(frozen=True)
class ImageScores:
    """What the bundle's own head and detector say of a batch.

    Attributes:
        labels: Predicted class per image, (n,) int64; None without a head.
        probabilities: Softmax of the head, (n, c) float32; None without a head.
        novelty: OOD score per image, higher is more novel; None without a detector.
        class_names: Name of each class, or empty.
    """

    labels: Labels | None
    probabilities: Probabilities | None
    novelty: Scores | None
    class_names: tuple[str, ...] = ()


@runtime_checkable
class Scorer(Protocol):
    """A model that answers with its own class prediction and OOD score."""

    def score(self, images: Images | EncodedImages) -> ImageScores:
        """Return class and novelty of each image.

        Raises:
            NotFound: If the bundle has neither head nor detector.
        """
        ...


@dataclass(frozen=True)
class Usage:
    """What a counted embedder was asked so far.

    Attributes:
        images: Images sent, each counted once however often a call was retried.
        calls: Calls made.
        bytes_sent: Payload bytes sent.
        retries: Calls repeated after a retryable failure.
        cache_hits: Questions answered from memory, without a call.
    """

    images: int = 0
    calls: int = 0
    bytes_sent: int = 0
    retries: int = 0
    cache_hits: int = 0


@runtime_checkable
class Metered(Protocol):
    """Something that counts what it was asked."""

    @property
    def usage(self) -> Usage:
        """Totals since creation."""
        ...
