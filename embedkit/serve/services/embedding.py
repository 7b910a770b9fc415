"""EmbeddingService: images in, embeddings and the bundle's own scores out."""

import time
from collections.abc import Callable
from functools import lru_cache

import grpc
import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput, MessageTooLarge
from embedkit.serve.answer import Answer, Query
from embedkit.serve.engine import Engine
from embedkit.serve.loaded import LoadedModel
from embedkit.serve.observe.record import ItemsRecord
from embedkit.serve.services.failure import answering
from embedkit.types import EncodedImages, Images
from embedkit.wire.codec import decode_images, fill_tensor, fill_vectors
from embedkit.wire.proto import embedding_pb2, embedding_pb2_grpc, tensor_pb2
from embedkit.wire.status import to_status

__all__ = ["OUTPUT_NAMES", "EmbeddingServicer", "time_left"]

OUTPUT_NAMES: dict[int, str] = {
    embedding_pb2.EMBEDDING: "embedding",
    embedding_pb2.FEATURES: "features",
    embedding_pb2.TOKENS: "tokens",
    embedding_pb2.OOD_SCORE: "ood_score",
    embedding_pb2.CLASS: "class",
}
_VECTOR_DTYPES = (
    tensor_pb2.DTYPE_UNSPECIFIED,
    tensor_pb2.FLOAT32,
    tensor_pb2.FLOAT16,
    tensor_pb2.INT8,
)
# Each output may be named a few times; a longer list is not worth remembering.
_MAX_OUTPUTS = 16
_MAX_ID = 256
# gRPC gives a call without deadline some centuries.
_FOREVER_S = 1e8


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Answers ``Embed`` from the engine.

    Args:
        engine: The loaded models.
        max_images: Most images in one call.
        count_items: Called after each answer.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_images: int,
        count_items: Callable[[ItemsRecord], None] | None = None,
    ) -> None:
        self._engine = engine
        self._max_images = max_images
        self._count_items = count_items

    @answering
    def Embed(
        self, request: embedding_pb2.EmbedRequest, context: grpc.ServicerContext
    ) -> embedding_pb2.EmbedResponse:
        """Embed one or many images; a bad one among several fails alone."""
        model = self._engine.get(request.model, request.version)
        wants = _wants(tuple(request.outputs[:_MAX_OUTPUTS]))
        _check_form(request, model)
        images = self._images(request)
        left_s = time_left(context)
        deadline = None if left_s is None else time.monotonic() + left_s
        answer = model.infer(Query(images, wants, deadline, context.add_callback))
        if self._count_items is not None:
            bad = len(answer.errors)
            times = (answer.queue_s, answer.decode_s, answer.infer_s)
            self._count_items(ItemsRecord(model.name, len(images) - bad, bad, *times))
        return _respond(request, wants, answer, model)

    def _images(self, request: embedding_pb2.EmbedRequest) -> Images | EncodedImages:
        kind = request.WhichOneof("input")
        images: Images | EncodedImages
        if kind == "pixels":
            images = decode_images(request.pixels)
        elif kind == "encoded":
            images = list(request.encoded.data)
        else:
            raise InvalidInput("expected images in 'encoded' or 'pixels', got neither")
        if len(images) > self._max_images:
            raise MessageTooLarge(
                f"expected at most {self._max_images} images in one call, got {len(images)}"
            )
        return images


def time_left(context: grpc.ServicerContext) -> float | None:
    """Seconds until the call's deadline, or None without one."""
    left: float | None = context.time_remaining()
    return None if left is None or left > _FOREVER_S else left


@lru_cache(maxsize=64)
def _wants(outputs: tuple[int, ...]) -> frozenset[str]:
    """The engine's names of the outputs asked for; the embedding by default."""
    unknown = [code for code in outputs if code not in OUTPUT_NAMES]
    if unknown:
        raise InvalidInput(f"expected outputs of {list(OUTPUT_NAMES)}, got {unknown}")
    return frozenset(OUTPUT_NAMES[code] for code in outputs) or frozenset({"embedding"})


def _check_form(request: embedding_pb2.EmbedRequest, model: LoadedModel) -> None:
    if len(request.request_id) > _MAX_ID:
        raise InvalidInput(
            f"expected a request_id of at most {_MAX_ID} characters, "
            f"got {len(request.request_id)}"
        )
    if request.dtype not in _VECTOR_DTYPES:
        raise InvalidInput(f"expected dtype FLOAT32, FLOAT16 or INT8, got {request.dtype}")
    if len(request.outputs) > _MAX_OUTPUTS:
        raise InvalidInput(
            f"expected at most {_MAX_OUTPUTS} outputs, got {len(request.outputs)}"
        )
    if request.dims > model.bundle.manifest.dim:
        raise InvalidInput(
            f"expected dims of at most {model.bundle.manifest.dim}, got {request.dims}"
        )


def _respond(
    request: embedding_pb2.EmbedRequest,
    wants: frozenset[str],
    answer: Answer,
    model: LoadedModel,
) -> embedding_pb2.EmbedResponse:
    response = embedding_pb2.EmbedResponse(
        request_id=request.request_id, model_digest=model.digest
    )
    timing = response.timing
    timing.queue_ns = int(answer.queue_s * 1e9)
    timing.decode_ns = int(answer.decode_s * 1e9)
    timing.infer_ns = int(answer.infer_s * 1e9)
    timing.batch_size = answer.batch_size
    if "embedding" in wants:
        vectors = np.asarray(answer.rows["embedding"], np.float32)
        fill_vectors(response.embeddings, _shorten(vectors, request.dims), request.dtype)
    for name in wants & {"features", "tokens"}:
        vectors = np.asarray(answer.rows[name], np.float32)
        fill_vectors(getattr(response, name), vectors, request.dtype)
    if "ood_score" in wants:
        fill_tensor(response.ood_scores, answer.rows["ood_score"])
    if "class" in wants:
        _predict(response.classes, answer, model)
    for index in sorted(answer.errors):
        response.errors.add(index=index, status=to_status(answer.errors[index]))
    return response


def _shorten(vectors: npt.NDArray[np.float32], dims: int) -> npt.NDArray[np.float32]:
    """Keep the first ``dims`` dimensions, normalised again; 0 keeps all."""
    if dims in (0, vectors.shape[1]):
        return vectors
    kept = vectors[:, :dims]
    norms = np.linalg.norm(kept, axis=1, keepdims=True)
    shortened = np.zeros_like(kept)
    np.divide(kept, norms, out=shortened, where=norms > 0)
    return shortened


def _predict(
    predictions: embedding_pb2.Predictions, answer: Answer, model: LoadedModel
) -> None:
    fill_tensor(predictions.labels, answer.rows["labels"])
    fill_tensor(predictions.probabilities, answer.rows["probabilities"])
    if model.scoring.head is not None:
        predictions.class_names[:] = model.scoring.head.class_names
