"""The Open Inference Protocol (KServe v2) beside our own, for Triton and KServe clients.

Only this module loads the stubs of package ``inference``: another library's stubs of the same
package, such as tritonclient's, cannot be in one process with them.

Input ``images`` is UINT8 (n, h, w, c) of any size, ``encoded`` is BYTES (n) or (n, 1) of image
files; a request has one of them. Outputs are the rows that the bundle gives.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from math import prod
from typing import NamedTuple, cast

import numpy as np
from google.protobuf.message import Message

import embedkit
from embedkit.errors import (
    EmbedkitError,
    InvalidInput,
    MessageTooLarge,
    NotFound,
    QueueFull,
)
from embedkit.serve.answer import Answer, Query, items_of
from embedkit.serve.engine import Engine
from embedkit.serve.handlers import is_shedding
from embedkit.serve.loaded import LoadedModel
from embedkit.serve.observe.record import ItemsRecord
from embedkit.serve.running.scoring import ROW_NAMES
from embedkit.serve.services.call import Begin, Call
from embedkit.serve.services.embedding import start
from embedkit.serve.services.guard import Guard
from embedkit.types import EncodedImages, Images

try:
    from embedkit.wire.proto.inference import open_inference_pb2 as pb
except TypeError as error:
    raise InvalidInput(
        "expected to be alone with the messages of package 'inference' in this process, got "
        "those of another library (tritonclient?); serve in a process of its own, or without "
        f"the Open Inference Protocol (--no-oip): {error}"
    ) from error

__all__ = ["SERVICE", "InferenceServicer", "add_inference_service"]

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Tensors that are not in the message, and outputs that are strings: extensions of Triton.
_EXTENSIONS = ("shared_memory_region", "classification")

# What is beyond these is counted and refused, before a list is made of it.
_MAX_AXES = 4  # of images
_MAX_TENSORS = 16


class _Type(NamedTuple):
    """An output's type in the protocol, in numpy, and its field in typed contents."""

    name: str
    dtype: str
    field: str


_FP32 = _Type("FP32", "<f4", "fp32_contents")
_TYPES = {
    "embedding": _FP32,
    "features": _FP32,
    "tokens": _FP32,
    "labels": _Type("INT64", "<i8", "int64_contents"),
    "probabilities": _FP32,
    "ood_score": _Type("FP64", "<f8", "fp64_contents"),
}
_WANTS = {row: want for want, rows in ROW_NAMES.items() for row in rows}


class InferenceServicer:
    """Answers the calls of ``inference.GRPCInferenceService`` from the engine.

    Args:
        engine: The loaded models.
        pool: Threads that decode.
        max_images: Most images in one call.
        is_ready: Whether the server takes calls.
        count_items: Called after each inference.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        pool: Executor,
        max_images: int,
        is_ready: Callable[[], bool],
        count_items: Callable[[ItemsRecord], None],
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._max_images = max_images
        self._is_ready = is_ready
        self._count_items = count_items

    def server_live(self, message: Message, call: Call) -> None:
        """Say that the server answers."""
        call.reply(pb.ServerLiveResponse(live=True))

    def server_ready(self, message: Message, call: Call) -> None:
        """Say whether the server takes calls and has a model."""
        ready = self._is_ready() and bool(self._engine.models)
        call.reply(pb.ServerReadyResponse(ready=ready))

    def model_ready(self, message: Message, call: Call) -> None:
        """Say whether a model is loaded; an unknown one is not ready."""
        request = cast(pb.ModelReadyRequest, message)
        try:
            self._engine.get(request.name, request.version)
        except NotFound:
            call.reply(pb.ModelReadyResponse(ready=False))
        else:
            call.reply(pb.ModelReadyResponse(ready=self._is_ready()))

    def server_metadata(self, message: Message, call: Call) -> None:
        """Name the server; it has no extensions."""
        call.reply(pb.ServerMetadataResponse(name="embedkit", version=embedkit.__version__))

    def model_metadata(self, message: Message, call: Call) -> None:
        """Describe a model's inputs and outputs; a dimension of -1 is any."""
        request = cast(pb.ModelMetadataRequest, message)
        model = self._engine.get(request.name, request.version)
        response = pb.ModelMetadataResponse(
            name=model.name,
            versions=[m.version for m in self._engine.models if m.name == model.name],
            platform="onnxruntime_onnx",
            properties={"model_digest": model.digest},
        )
        response.inputs.add(name="images", datatype="UINT8", shape=(-1, *model.spec.shape))
        response.inputs.add(name="encoded", datatype="BYTES", shape=(-1,))
        for name in _rows_of(model):
            shape = (-1, *_shape(model, name))
            response.outputs.add(name=name, datatype=_TYPES[name].name, shape=shape)
        call.reply(response)

    def model_infer(self, message: Message, call: Call) -> None:
        """Answer for one or many images, all or none; outputs are in the form of the inputs."""
        request = cast(pb.ModelInferRequest, message)
        if request.raw_input_contents:
            self._infer(request, call)
        else:  # lists of numbers take milliseconds to read
            self._pool.submit(self._infer_here, request, call)

    def _infer_here(self, request: pb.ModelInferRequest, call: Call) -> None:
        try:
            if is_shedding():
                raise QueueFull("too many calls are waiting already; retry later")
            self._infer(request, call)
        except Exception as error:
            call.fail(error)

    def _infer(self, request: pb.ModelInferRequest, call: Call) -> None:
        model = self._engine.get(request.model_name, request.model_version)
        names = _wanted(request, model)
        images = _images(request, self._max_images)
        wants = frozenset(_WANTS[name] for name in names)
        query = Query(images, wants, _deadline(request, call), call.watch, trace=call.trace)
        if call.trace is not None:
            call.trace.asked(model.name, model.version, len(images))

        def done(answer: Answer | Exception) -> None:
            try:
                if isinstance(answer, Exception):
                    raise answer
                items = items_of(model.name, len(images), answer)
                self._count_items(items)
                if call.trace is not None:
                    call.trace.answered(items, answer.batch_size)
                _check_all(answer)
                call.reply(_respond(request, names, answer, model))
            except Exception as error:
                call.fail(error)

        start(model, query, done, call, self._pool)


def add_inference_service(guard: Guard, servicer: InferenceServicer) -> None:
    """Register GRPCInferenceService on a server that has not started."""
    methods: dict[str, tuple[Begin, Callable[[bytes], Message]]] = {
        "ServerLive": (servicer.server_live, pb.ServerLiveRequest.FromString),
        "ServerReady": (servicer.server_ready, pb.ServerReadyRequest.FromString),
        "ModelReady": (servicer.model_ready, pb.ModelReadyRequest.FromString),
        "ServerMetadata": (servicer.server_metadata, pb.ServerMetadataRequest.FromString),
        "ModelMetadata": (servicer.model_metadata, pb.ModelMetadataRequest.FromString),
        "ModelInfer": (servicer.model_infer, pb.ModelInferRequest.FromString),
    }
    for name, (begin, parse) in methods.items():
        guard.add_method(SERVICE, name, begin, parse)


def _rows_of(model: LoadedModel) -> tuple[str, ...]:
    """Names of the outputs that a model can give."""
    return tuple(row for want in model.answers for row in ROW_NAMES[want])


def _shape(model: LoadedModel, name: str) -> Sequence[int]:
    """Shape of one row of an output."""
    if name == "probabilities" and model.scoring.head is not None:
        return (len(model.scoring.head.class_names),)
    return model.bundle.manifest.outputs.get(name, ())


def _wanted(request: pb.ModelInferRequest, model: LoadedModel) -> tuple[str, ...]:
    """Names of the outputs asked for, each once; all by default, as the protocol has it."""
    given = len(request.inputs), len(request.outputs)
    if max(given) > _MAX_TENSORS:
        raise InvalidInput(
            f"expected one input and at most {_MAX_TENSORS} outputs, got {given[0]} and "
            f"{given[1]}"
        )
    known = _rows_of(model)
    names = tuple(dict.fromkeys(output.name for output in request.outputs)) or known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise NotFound(
            f"expected outputs of {', '.join(known)} from model {model.name!r}, got "
            f"{', '.join(unknown)}"
        )
    for tensor in (*request.inputs, *request.outputs):
        for extension in _EXTENSIONS:
            if extension in tensor.parameters:
                raise InvalidInput(
                    f"expected no parameter {extension!r}, got one for {tensor.name!r}; this "
                    "extension of the protocol is not served"
                )
    return names


def _deadline(request: pb.ModelInferRequest, call: Call) -> float | None:
    """When nobody waits any more: the call's deadline or the ``timeout`` parameter, in µs."""
    left = [call.time_left()]
    if "timeout" in request.parameters:
        left.append(max(request.parameters["timeout"].int64_param, 0) / 1e6 or None)
    ends = [time.monotonic() + seconds for seconds in left if seconds is not None]
    return min(ends, default=None)


def _images(request: pb.ModelInferRequest, most: int) -> Images | EncodedImages:
    if len(request.inputs) != 1 or request.inputs[0].name not in ("images", "encoded"):
        names = [tensor.name for tensor in request.inputs]
        raise InvalidInput(f"expected one input, 'images' or 'encoded', got {names}")
    (tensor,) = request.inputs
    raw = request.raw_input_contents
    if raw and (len(raw) != 1 or tensor.contents.ByteSize()):
        raise InvalidInput(
            f"expected raw or typed contents for one input, got {len(raw)} raw ones and "
            f"{tensor.contents.ByteSize()} bytes of typed ones"
        )
    count = tensor.shape[0] if tensor.shape else 0
    if count > most:
        raise MessageTooLarge(f"expected at most {most} images in one call, got {count}")
    data = raw[0] if raw else None
    return _pixels(tensor, data) if tensor.name == "images" else _files(tensor, data)


def _pixels(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Images:
    shape = _few_axes(tensor)
    if tensor.datatype != "UINT8" or len(shape) != 4 or min(shape) < 0:
        raise InvalidInput(
            f"expected 'images' as UINT8 (n, h, w, c), got {tensor.datatype} {shape}"
        )
    if shape[3] not in (1, 3) or 0 in shape[1:]:
        raise InvalidInput(f"expected images with 1 or 3 channels, got shape {shape}")
    values = tensor.contents.uint_contents
    given = len(values) if raw is None else len(raw)
    if given != prod(shape):
        raise InvalidInput(f"expected {prod(shape)} values for shape {shape}, got {given}")
    if raw is not None:
        return np.frombuffer(raw, np.uint8).reshape(shape)
    numbers = np.array(values, np.uint32)
    if numbers.max(initial=0) > 255:
        raise InvalidInput(f"expected values of at most 255, got {numbers.max()}")
    return numbers.astype(np.uint8).reshape(shape)


def _files(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> EncodedImages:
    shape = _few_axes(tensor)
    if tensor.datatype != "BYTES" or len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise InvalidInput(
            f"expected 'encoded' as BYTES (n) or (n, 1), got {tensor.datatype} {shape}"
        )
    files: Iterable[bytes] = tensor.contents.bytes_contents
    found = list(files) if raw is None else _split(raw, shape[0])
    if len(found) != shape[0]:
        raise InvalidInput(f"expected {shape[0]} files for shape {shape}, got {len(found)}")
    return found


def _few_axes(tensor: pb.ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    """The shape of an input, if it has no more axes than images have."""
    if len(tensor.shape) > _MAX_AXES:
        raise InvalidInput(
            f"expected {tensor.name!r} with at most {_MAX_AXES} axes, got {len(tensor.shape)}"
        )
    return tuple(tensor.shape)


def _split(data: bytes, most: int) -> list[bytes]:
    """Cut raw BYTES: before each element stands its length, 4 bytes, little-endian."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + 4
        at = begin + int.from_bytes(data[at:begin], "little")
        if at > len(data) or len(found) >= most:
            raise InvalidInput(
                f"expected {most} elements, each after its length in 4 bytes, got "
                f"{len(data)} bytes that are not"
            )
        found.append(data[begin:at])
    return found


def _check_all(answer: Answer) -> None:
    """Fail for the first bad image: the protocol has no place for a failure of one."""
    for index in sorted(answer.errors):
        error = answer.errors[index]
        if isinstance(error, EmbedkitError):
            raise type(error)(f"image {index}: {error}") from error
        raise error


def _respond(
    request: pb.ModelInferRequest, names: Sequence[str], answer: Answer, model: LoadedModel
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(
        model_name=model.name, model_version=model.version, id=request.id
    )
    response.parameters["model_digest"].string_param = model.digest
    for name in names:
        kind = _TYPES[name]
        rows = np.ascontiguousarray(answer.rows[name], kind.dtype)
        output = response.outputs.add(name=name, datatype=kind.name, shape=rows.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(rows.tobytes())
        else:
            getattr(output.contents, kind.field).extend(rows.ravel().tolist())
    return response
