"""EmbeddingService: images in, embeddings and the bundle's own scores out."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from google.rpc import status_pb2

from embedkit.errors import InvalidInput, MessageTooLarge, QueueFull
from embedkit.serve.answer import Answer, Query, items_of
from embedkit.serve.engine import Engine
from embedkit.serve.handlers import is_shedding
from embedkit.serve.job import Priority
from embedkit.serve.loaded import LoadedModel
from embedkit.serve.observe.record import ItemsRecord
from embedkit.serve.services.call import Call
from embedkit.serve.services.guard import Guard
from embedkit.types import EncodedImages, Images
from embedkit.wire.codec import decode_images, fill_tensor, fill_vectors
from embedkit.wire.proto import embedding_pb2, tensor_pb2
from embedkit.wire.status import to_status

__all__ = ["OUTPUT_NAMES", "EmbeddingServicer", "add_embedding_service", "start"]

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
_SERVICE = embedding_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].full_name


class EmbeddingServicer:
    """Answers ``Embed``, or the requests of ``EmbedStream``, from the engine.

    Args:
        engine: The loaded models.
        pool: Threads that decode.
        max_images: Most images in one call.
        count_items: Called after each answer.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        pool: Executor,
        max_images: int,
        count_items: Callable[[ItemsRecord], None] | None = None,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._max_images = max_images
        self._count_items = count_items

    def embed(self, message: Message, call: Call) -> None:
        """Embed one or many images; a bad one among several fails alone.

        Images of the model's own size are queued at once; others are decoded or resized on a
        thread of the pool first.
        """
        request = cast(embedding_pb2.EmbedRequest, message)
        model = self._engine.get(request.model, request.version)
        wants = _wants(tuple(request.outputs[:_MAX_OUTPUTS]))
        _check_form(request, model)
        images = self._images(request)
        left_s = call.time_left()
        deadline = None if left_s is None else time.monotonic() + left_s
        lane = _priority(request.priority)
        query = Query(images, wants, deadline, call.watch, lane, call.trace)
        if call.trace is not None:
            call.trace.asked(model.name, model.version, len(images))

        def done(answer: Answer | Exception) -> None:
            try:
                if isinstance(answer, Exception):
                    raise answer
                items = items_of(model.name, len(images), answer)
                if self._count_items is not None:
                    self._count_items(items)
                if call.trace is not None:
                    call.trace.answered(items, answer.batch_size)
                call.reply(_respond(request, wants, answer, model))
            except Exception as error:
                call.fail(error)

        start(model, query, done, call, self._pool)

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


def add_embedding_service(
    guard: Guard, unary: EmbeddingServicer, streamed: EmbeddingServicer
) -> None:
    """Register EmbeddingService on a server that has not started.

    Args:
        guard: Of the server.
        unary: Answers ``Embed``.
        streamed: Answers the requests of ``EmbedStream``; a pool of its own keeps streams of
            image files from the threads that unary calls decode on.
    """
    parse = embedding_pb2.EmbedRequest.FromString
    guard.add_method(_SERVICE, "Embed", unary.embed, parse)
    guard.add_stream(_SERVICE, "EmbedStream", streamed.embed, parse, _refuse)


def start(
    model: LoadedModel,
    query: Query,
    done: Callable[[Answer | Exception], None],
    call: Call,
    pool: Executor,
) -> None:
    """Queue a query: here if its pixels are ready, else on a thread that decodes first.

    Args:
        model: Answers it.
        query: What is asked.
        done: Called once with the answer or the failure, unless this raises.
        call: Ended if the query cannot be queued after decoding.
        pool: Threads that decode.

    Raises:
        EmbedkitError: As ``LoadedModel.begin``.
    """
    if model.is_ready(query.images):
        model.begin(query, done)
    else:
        pool.submit(_begin, model, query, done, call)


def _refuse(request_id: str, status: status_pb2.Status) -> Message:
    """The answer to a request of a stream that failed as a whole."""
    return embedding_pb2.EmbedResponse(request_id=request_id, status=status)


def _begin(
    model: LoadedModel, query: Query, done: Callable[[Answer | Exception], None], call: Call
) -> None:
    """Decode on this thread, then queue."""
    try:
        if is_shedding():
            raise QueueFull("too many calls are waiting already; retry later")
        model.begin(query, done)
    except Exception as error:
        call.fail(error)


@lru_cache(maxsize=64)
def _wants(outputs: tuple[int, ...]) -> frozenset[str]:
    """The engine's names of the outputs asked for; the embedding by default."""
    unknown = [code for code in outputs if code not in OUTPUT_NAMES]
    if unknown:
        raise InvalidInput(f"expected outputs of {list(OUTPUT_NAMES)}, got {unknown}")
    return frozenset(OUTPUT_NAMES[code] for code in outputs) or frozenset({"embedding"})


def _priority(code: int) -> Priority:
    """The engine's name of a priority; interactive where none is given."""
    if code == embedding_pb2.BULK:
        return Priority.BULK
    if code in (embedding_pb2.PRIORITY_UNSPECIFIED, embedding_pb2.INTERACTIVE):
        return Priority.INTERACTIVE
    raise InvalidInput(f"expected the priority INTERACTIVE or BULK, got {code}")


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
