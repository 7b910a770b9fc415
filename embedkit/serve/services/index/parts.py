"""What all calls of IndexService have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
import numpy as np

from embedkit.errors import InvalidInput, MessageTooLarge, ModelMismatch
from embedkit.retrieve.patience import Patience
from embedkit.retrieve.store import VectorStore
from embedkit.serve.observe.record import ItemsRecord
from embedkit.serve.services.call import Call, forever
from embedkit.types import Collection, Embeddings, EncodedImages, Images
from embedkit.wire.codec import decode_images, decode_tensor
from embedkit.wire.proto import index_pb2

__all__ = ["CallPatience", "Calls", "EmbedCall", "Parts", "patience_of", "vectors_of"]

Watch = Callable[[Callable[[], None]], bool]
"""Given a function to call when the caller goes away; returns False if it has gone."""


class EmbedCall(Protocol):
    """How the service turns images into vectors."""

    def __call__(
        self,
        model: str,
        images: Images | EncodedImages,
        timeout_s: float | None,
        *,
        watch: Watch | None = None,
        count_items: Callable[[ItemsRecord], None] | None = None,
    ) -> tuple[Embeddings, str]:
        """Return the embeddings and the digest of the model that made them.

        Args:
            model: Name; empty where the server has one model.
            images: At least one.
            timeout_s: Seconds until nobody waits for the answer, or None.
            watch: Tells when the caller goes away, or None.
            count_items: Called with the images of the answer.

        Raises:
            BadImage: For the first image that cannot be decoded.
            Cancelled: If the caller has gone; its images are not run.
            NotFound: If there is no such model.
        """
        ...


@dataclass(frozen=True)
class Parts:
    """What calls are answered with.

    Attributes:
        store: Holds the collections.
        embed: Embeds the images of requests that carry images.
        answer_bytes: Of the largest answer.
        max_images: Most images in one call.
        count_items: Called with the images of each request that carries some.
    """

    store: VectorStore
    embed: EmbedCall
    answer_bytes: int
    max_images: int = 1024
    count_items: Callable[[ItemsRecord], None] | None = None


class Calls:
    """Some calls of the service.

    Args:
        parts: What they are answered with.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store


Asking = index_pb2.UpsertRequest | index_pb2.SearchRequest | index_pb2.RangeSearchRequest


def vectors_of(
    parts: Parts, request: Asking, collection: Collection, patience: Patience
) -> tuple[Embeddings, str]:
    """The request's vectors, embedded if it has images, and the digest of their model.

    Raises:
        InvalidInput: If it has neither, or not one for each id.
        MessageTooLarge: If it has more images than a call may bring.
        ModelMismatch: If its images are of another model than it says.
    """
    is_upsert = isinstance(request, index_pb2.UpsertRequest)
    kind = request.WhichOneof("source" if is_upsert else "query")
    if kind is None:
        raise InvalidInput("expected vectors, encoded images or pixels, got none of them")
    if kind == "vectors":
        vectors = decode_tensor(request.vectors, axes="n d", dtypes=("float32",))
        return np.asarray(vectors, np.float32), request.model_digest
    images: Images | EncodedImages = (
        list(request.encoded.data) if kind == "encoded" else decode_images(request.pixels)
    )
    if len(images) > parts.max_images:
        raise MessageTooLarge(
            f"expected at most {parts.max_images} images in one call, got {len(images)}"
        )
    if isinstance(request, index_pb2.UpsertRequest) and len(images) != len(request.ids):
        raise InvalidInput(
            f"expected one image for each of {len(request.ids)} ids, got {len(images)}"
        )
    if not len(images):
        return np.empty((0, collection.dim), np.float32), request.model_digest
    patience.check()
    watch = patience.watch if isinstance(patience, CallPatience) else None
    vectors, digest = parts.embed(
        collection.model,
        images,
        patience.left_s,
        watch=watch,
        count_items=parts.count_items,
    )
    if request.model_digest and request.model_digest != digest:
        raise ModelMismatch(
            f"expected the model {request.model_digest}, got {digest} on this server"
        )
    return vectors, digest


class CallPatience(Patience):
    """The patience of a call's caller, of whose leaving others can be told too.

    Args:
        timeout_s: Seconds until the call's deadline; None without one.
        watch: Of the call.
    """

    def __init__(self, timeout_s: float | None, watch: Watch) -> None:
        super().__init__(timeout_s)
        self.watch = watch
        if not watch(self.cancel):
            self.cancel()


def patience_of(context: grpc.ServicerContext | Call) -> CallPatience:
    """How long the caller waits: until its deadline, or until it goes away."""
    if isinstance(context, grpc.ServicerContext):
        return CallPatience(forever(context.time_remaining()), context.add_callback)
    return CallPatience(context.time_left(), context.watch)
