"""One served model as an Embedder, so that the evaluation measures what clients get."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedkit.client.images import ImageInput
from embedkit.client.index import searching
from embedkit.client.index.searching import Wanted, Window
from embedkit.client.inference import OnError, Outputs, Question, infer
from embedkit.client.items import Items
from embedkit.client.messages import ModelInfo
from embedkit.client.meter import Meter
from embedkit.errors import ModelChanged, NotFound
from embedkit.preprocess import InputSpec
from embedkit.types import Embeddings, EncodedImages, Images, ImageScores, Scores, Usage

if TYPE_CHECKING:
    from embedkit.client.sync import Client

__all__ = ["ServedModel"]

Rows = npt.NDArray[np.int64]
VectorSearch = Callable[[Embeddings, int], tuple[Rows, Scores]]

_QUERIES_AT_ONCE = 256
_HITS_AT_ONCE = 100_000


class ServedModel:
    """A model behind a client: ``Embedder``, ``FeatureEmbedder``, ``Scorer`` and ``Metered``.

    It stands for the one model digest that it was made with; when the server answers with
    another, every method raises ``ModelChanged``.

    Args:
        client: Stays open as long as this is used.
        name: As the caller gave it; may be empty where the server has one model.
        version: Empty for the latest.
        info: What the server says of it.
    """

    def __init__(self, client: "Client", name: str, version: str, info: ModelInfo) -> None:
        self.name = name
        self.version = version
        self.info = info
        self._client = client
        self._meter = Meter()

    @property
    def dim(self) -> int:
        """Dimensions of an embedding."""
        return self.info.dim

    @property
    def digest(self) -> str:
        """The model digest."""
        return self.info.digest

    @property
    def provider(self) -> str:
        """The onnxruntime execution provider that the server runs it on."""
        return self.info.provider

    @property
    def input(self) -> InputSpec:
        """What the model takes; other sizes and channels are converted by the server."""
        return self.info.input

    @property
    def usage(self) -> Usage:
        """What this object has asked so far."""
        return self._meter.usage

    def embed(self, images: ImageInput) -> Embeddings:
        """Return L2-normalised embeddings, (n, d) float32."""
        return _present(self.infer(images, "embedding").embeddings, "embedding")

    def features(self, images: ImageInput) -> Embeddings:
        """Return features before normalisation, (n, d) float32."""
        return _present(self.infer(images, "features").features, "features")

    def score(self, images: ImageInput) -> ImageScores:
        """Return the class and the OOD score of each image, as far as the bundle has them.

        Raises:
            NotFound: If it has neither.
        """
        names = [name for name in ("class", "ood_score") if name in self.info.outputs]
        if not names:
            raise NotFound(
                f"expected a model with a head or a detector, got {self.info.name!r} "
                f"with the outputs {list(self.info.outputs)}"
            )
        outputs = self.infer(images, *names)
        return ImageScores(
            labels=outputs.labels,
            probabilities=outputs.probabilities,
            novelty=outputs.novelty,
            class_names=outputs.class_names or self.info.class_names,
        )

    def retrieve(
        self, stored: Images | EncodedImages, queries: Images | EncodedImages, k: int
    ) -> npt.NDArray[np.int64]:
        """Rank stored images by likeness to each query, through a collection of its own.

        The collection is made for this, searched by image, and dropped.

        Args:
            stored: Images to search among.
            queries: Images to search for.
            k: Hits per query, at least 1.

        Returns:
            Rows of ``stored``, (m, k), best first; -1 where fewer were found.

        Raises:
            BadImage: Names the images that cannot be decoded.
            ModelChanged: If the server embeds with another model now.
            PermissionDenied: If the credential may not write collections.
        """
        client = self._client
        with self._collection() as name:
            ids = [str(row) for row in range(len(stored))]
            client.upsert(name, ids, images=stored)
            rows = np.full((len(queries), k), -1, np.int64)
            for start in range(0, len(rows), _step(k)):
                part = queries[start : start + _step(k)]
                found = client.search(name, images=part, k=k, with_payload=False)
                for row, hits in zip(rows[start:], found, strict=False):
                    row[: len(hits)] = [int(hit.id) for hit in hits]
            return rows

    @contextmanager
    def stored(self, vectors: Embeddings) -> Iterator[VectorSearch]:
        """Keep embeddings of this model in a collection of its own until the block ends.

        Args:
            vectors: (n, d) embeddings.

        Yields:
            The server's search among them, for many threads: from queries (m, d) and k to
            rows of ``vectors``, (m, k), best first, and their cosines; -1 and -inf where
            fewer were found. Its calls count in ``usage``.

        Raises:
            ModelChanged: If the server embeds with another model now.
            PermissionDenied: If the credential may not write collections.
        """
        client, without_payload = self._client, Wanted(with_payload=False)
        with self._collection() as name:
            ids = [str(row) for row in range(len(vectors))]
            client.upsert(name, ids, vectors=vectors, model_digest=self.digest)

            def search(queries: Embeddings, k: int) -> tuple[Rows, Scores]:
                rows = np.full((len(queries), k), -1, np.int64)
                cosines = np.full((len(queries), k), -np.inf)
                for start in range(0, len(rows), _step(k)):
                    part = queries[start : start + _step(k)]
                    items = Items(part, None, client.server().room)
                    plan = searching.search(name, items, Window(k), without_payload)
                    found = client.run(plan, self._meter)
                    for row, hits in enumerate(found, start):
                        rows[row, : len(hits)] = [int(hit.id) for hit in hits]
                        cosines[row, : len(hits)] = [hit.score for hit in hits]
                return rows, cosines

            yield search

    @contextmanager
    def _collection(self) -> Iterator[str]:
        """The name of a new collection of this model, dropped afterwards."""
        name = f"retrieve-{secrets.token_hex(8)}"
        made = self._client.create_collection(name, model=self.name or self.info.name)
        try:
            if made.model_digest != self.digest:
                raise ModelChanged(
                    f"expected the model {self.digest}, got {made.model_digest}: collections "
                    "use the latest version of a model"
                )
            yield name
        finally:
            self._client.drop_collection(name)

    def infer(
        self, images: ImageInput, *outputs: str, on_error: OnError = "raise", dims: int = 0
    ) -> Outputs:
        """Return any of the outputs ``embedding features tokens ood_score class``.

        Raises:
            BadImage: Names the images that cannot be decoded.
            ModelChanged: If the server has another model now.
        """
        question = Question(self.name, self.version, outputs, dims, on_error)
        result = self._client.run(infer(images, question, self._client.server()), self._meter)
        if result.digest not in ("", self.digest):
            raise ModelChanged(
                f"expected the model {self.digest}, got {result.digest}: the server has "
                f"loaded another {self.info.name!r}; ask the client for the model again"
            )
        return result


def _step(k: int) -> int:
    """Queries in one call: as many hits as a server sends at most."""
    return max(1, min(_QUERIES_AT_ONCE, _HITS_AT_ONCE // k))


def _present(array: Embeddings | None, name: str) -> Embeddings:
    if array is None:
        raise NotFound(f"expected the output {name!r} in the reply, got none")
    return array
