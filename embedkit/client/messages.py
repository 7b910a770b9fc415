"""What the clients say and how they read the answer; nothing is sent from here.

A method of a client is a ``Plan``: requests to send, and a function that makes the result of
the replies. The synchronous and the asyncio client run the same plans.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from embedkit.client.images import Room
from embedkit.errors import EmbedkitError, NotFound
from embedkit.preprocess import InputSpec
from embedkit.wire.proto import model_pb2

__all__ = ["Call", "ModelInfo", "Plan", "ServerInfo", "get_model", "list_models"]

Result = TypeVar("Result")
# Room for everything in a request that is not images or vectors.
_FRAMING_BYTES = 64 << 10


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        method: ``Service.Method``.
        request: The message.
        images: Images in it.
        label: What part of the whole it is, for error messages; empty for all of it.
        recover: Makes a reply of an error that concerns one item, or raises it again.
    """

    method: str
    request: Message
    images: int = 0
    label: str = ""
    recover: Callable[[EmbedkitError], Message] | None = None


@dataclass(frozen=True)
class Plan(Generic[Result]):
    """Requests, to be sent in order with several in flight, and what their replies mean.

    Attributes:
        calls: Made one by one as they are sent.
        read: Makes the result of the replies, which come in the order of the calls.
    """

    calls: Iterable[Call]
    read: Callable[[Sequence[Message]], Result]


@dataclass(frozen=True)
class ModelInfo:
    """One model of a server.

    Attributes:
        name: Its name.
        version: Its version, a number as text.
        digest: ``sha256:...`` of graph and input block.
        dim: Dimensions of an embedding.
        input: What it takes; the server brings anything else to it.
        outputs: Names that ``infer`` can ask for.
        class_names: Of its head; empty without one.
        provider: The onnxruntime execution provider in use.
        precision: fp32, fp16 or int8.
        heads: Names of its heads.
        detectors: Names of its OOD detectors.
        ood_detector: The detector behind ``ood_score``, or empty.
        ood_threshold: Scores above it are novel.
        max_batch_size: Images that run at once.
        manifest: The bundle's manifest.
    """

    name: str
    version: str
    digest: str
    dim: int
    input: InputSpec
    outputs: tuple[str, ...]
    class_names: tuple[str, ...]
    provider: str
    precision: str
    heads: tuple[str, ...]
    detectors: tuple[str, ...]
    ood_detector: str
    ood_threshold: float
    max_batch_size: int
    manifest: dict[str, object]


@dataclass(frozen=True)
class ServerInfo:
    """What a server has loaded, and what it accepts.

    Attributes:
        models: Every loaded version.
        room: What one message may hold.
    """

    models: tuple[ModelInfo, ...]
    room: Room

    def model(self, name: str, version: str) -> ModelInfo:
        """The model that a request with this name and version reaches.

        Raises:
            NotFound: If the server had none such when it was asked.
        """
        named = [m for m in self.models if name in ("", m.name)]
        found = [m for m in named if version in ("", m.version)]
        if not found or (not name and len({m.name for m in found}) > 1):
            known = ", ".join(f"{m.name}:{m.version}" for m in self.models) or "none"
            raise NotFound(f"expected a model of: {known}; got {name!r} version {version!r}")
        return max(found, key=lambda m: int(m.version) if m.version.isdigit() else -1)


def list_models() -> Plan[ServerInfo]:
    """Ask what the server has and accepts."""

    def read(replies: Sequence[Message]) -> ServerInfo:
        (reply,) = replies
        room = Room(
            message_bytes=max(1, reply.max_message_bytes - _FRAMING_BYTES),
            images=max(1, reply.max_images_per_request),
        )
        return ServerInfo(tuple(_model_info(m) for m in reply.models), room)

    return Plan([Call("ModelService.ListModels", model_pb2.ListModelsRequest())], read)


def get_model(name: str, version: str) -> Plan[ModelInfo]:
    """Ask about one model."""
    request = model_pb2.GetModelRequest(name=name, version=version)
    return Plan([Call("ModelService.GetModel", request)], lambda r: _model_info(r[0]))


def load_model(name: str, version: str) -> Plan[ModelInfo]:
    """Have a version loaded."""
    request = model_pb2.LoadModelRequest(name=name, version=version)
    return Plan([Call("ModelService.LoadModel", request)], lambda r: _model_info(r[0]))


def unload_model(name: str, version: str) -> Plan[None]:
    """Have a version given up."""
    request = model_pb2.UnloadModelRequest(name=name, version=version)
    return Plan([Call("ModelService.UnloadModel", request)], lambda _: None)


def _model_info(model: model_pb2.Model) -> ModelInfo:
    manifest = json.loads(model.manifest_json)
    return ModelInfo(
        name=model.name,
        version=model.version,
        digest=model.model_digest,
        dim=model.dim,
        input=InputSpec.from_dict(manifest["input"]),
        outputs=tuple(name.lower() for name in model.outputs),
        class_names=tuple(model.class_names),
        provider=model.provider,
        precision=model.precision,
        heads=tuple(model.heads),
        detectors=tuple(model.detectors),
        ood_detector=model.ood_detector,
        ood_threshold=model.ood_threshold,
        max_batch_size=model.max_batch_size,
        manifest=manifest,
    )
