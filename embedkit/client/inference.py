"""Images to a model and its outputs back, as a plan of requests."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from embedkit.client.images import Chunk, ImageInput, count_images, cut_images
from embedkit.client.messages import Call, Plan, ServerInfo
from embedkit.errors import BadImage, EmbedkitError, InvalidInput, ModelChanged
from embedkit.types import Embeddings, Labels, Probabilities, Scores
from embedkit.wire.codec import decode_tensor, encode_images
from embedkit.wire.proto import embedding_pb2, tensor_pb2
from embedkit.wire.status import from_status, to_status

__all__ = ["OnError", "Outputs", "Question", "SeenModels", "embeddings_of", "infer"]

OnError = Literal["raise", "nan"]
_OUTPUTS: dict[str, embedding_pb2.Output] = {
    "embedding": embedding_pb2.EMBEDDING,
    "features": embedding_pb2.FEATURES,
    "tokens": embedding_pb2.TOKENS,
    "ood_score": embedding_pb2.OOD_SCORE,
    "class": embedding_pb2.CLASS,
}
_SHOWN_ERRORS = 3
Array = npt.NDArray[np.generic]
_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True)
class Outputs:
    """What a model says of n images; None for what was not asked for.

    Attributes:
        embeddings: (n, d) float32, L2-normalised.
        features: (n, d) float32, before normalisation.
        tokens: (n, t, d) float32.
        labels: (n,) int64, -1 for a bad image.
        probabilities: (n, c) float32.
        class_names: Name of each class.
        novelty: OOD score, (n,) float64, higher is more novel.
        errors: What was wrong with each bad image, by its index; its rows are NaN.
        digest: Digest of the model; empty if there was no image.
    """

    embeddings: Embeddings | None
    features: Embeddings | None
    tokens: npt.NDArray[np.float32] | None
    labels: Labels | None
    probabilities: Probabilities | None
    class_names: tuple[str, ...]
    novelty: Scores | None
    errors: dict[int, EmbedkitError]
    digest: str


def embeddings_of(outputs: Outputs) -> Embeddings:
    """The embeddings, where they were asked for."""
    if outputs.embeddings is None:
        raise EmbedkitError("expected embeddings in the reply, got none")
    return outputs.embeddings


@dataclass(frozen=True)
class Question:
    """What to ask of a model.

    Attributes:
        model: Name; empty where the server has one model.
        version: Empty for the latest.
        outputs: What to return: ``embedding features tokens ood_score class``.
        dims: Keep the first dimensions of the embedding, normalised again; 0 keeps all.
        on_error: ``raise`` if an image is bad, or give it rows of NaN.
    """

    model: str = ""
    version: str = ""
    outputs: tuple[str, ...] = ("embedding",)
    dims: int = 0
    on_error: OnError = "raise"

    def check(self) -> None:
        """Refuse unknown outputs.

        Raises:
            InvalidInput: If an output or ``on_error`` is unknown, there is no output, or
                ``dims`` is no whole number of at least 0.
        """
        if not isinstance(self.dims, int | np.integer) or not 0 <= self.dims < 2**32:
            raise InvalidInput(
                f"expected dims as a whole number of at least 0, got {self.dims!r}"
            )
        unknown = [name for name in self.outputs if name not in _OUTPUTS]
        if unknown or not self.outputs or self.on_error not in ("raise", "nan"):
            raise InvalidInput(
                f"expected outputs of {list(_OUTPUTS)} and on_error 'raise' or 'nan', got "
                f"{list(self.outputs)} and {self.on_error!r}"
            )


def infer(images: ImageInput, question: Question, server: ServerInfo) -> Plan[Outputs]:
    """Ask a model about images.

    Raises:
        InvalidInput: If images or outputs are not of a known form.
    """
    question.check()
    count = count_images(images)
    starts: list[int] = []

    def calls() -> Iterator[Call]:
        for chunk in cut_images(images, server.room):
            starts.append(chunk.start)
            yield _call(chunk, question)

    def read(replies: Sequence[Message]) -> Outputs:
        return _read(question, server, count, list(zip(starts, replies, strict=True)))

    return Plan(calls(), read)


def _call(chunk: Chunk, question: Question) -> Call:
    message = encode_images(chunk.images)
    is_pixels = isinstance(message, tensor_pb2.Tensor)
    request = embedding_pb2.EmbedRequest(
        model=question.model,
        version=question.version,
        pixels=message if is_pixels else None,
        encoded=None if is_pixels else message,
        outputs=[_OUTPUTS[name] for name in question.outputs],
        dims=question.dims,
    )
    single = len(chunk.images) == 1
    return Call(
        "EmbeddingService.Embed",
        request,
        images=len(chunk.images),
        recover=_as_item_error if single else None,
    )


def _as_item_error(error: EmbedkitError) -> Message:
    """Read the refusal of a single image as that item's error, as in a larger message."""
    if not isinstance(error, BadImage):
        raise error
    reply = embedding_pb2.EmbedResponse()
    reply.errors.add(index=0, status=to_status(error))
    return reply


Replies = list[tuple[int, Message]]
"""Each reply with the index of its first image."""


def _read(question: Question, server: ServerInfo, count: int, replies: Replies) -> Outputs:
    errors = {
        start + item.index: from_status(item.status)
        for start, reply in replies
        for item in reply.errors
    }
    if errors and question.on_error == "raise":
        raise _bad_images(errors, count)
    join = _Join(question, server, count, replies, np.asarray(sorted(errors), np.int64))
    names = [tuple(r.classes.class_names) for _, r in replies if r.HasField("classes")]
    return Outputs(
        embeddings=join.floats("embedding", [_get(r, "embeddings") for _, r in replies]),
        features=join.floats("features", [_get(r, "features") for _, r in replies]),
        tokens=join.floats("tokens", [_get(r, "tokens") for _, r in replies]),
        labels=join.labels([_get(r.classes, "labels") for _, r in replies]),
        probabilities=join.floats(
            "class", [_get(r.classes, "probabilities") for _, r in replies]
        ),
        class_names=names[0] if names else (),
        novelty=join.scores([_get(r, "ood_scores") for _, r in replies]),
        errors=errors,
        digest=_only_digest(reply.model_digest for _, reply in replies),
    )


def _only_digest(digests: Iterable[str]) -> str:
    """The digest that all replies carry; empty if none carries one.

    Raises:
        ModelChanged: If there are two.
    """
    found = dict.fromkeys(digest for digest in digests if digest)
    if len(found) > 1:
        raise ModelChanged(
            f"expected all replies from one model, got {' and '.join(found)}; the server "
            "loaded another version meanwhile: repeat the call"
        )
    return next(iter(found), "")


class SeenModels:
    """Remembers which model answered to each name, for as long as a client lives."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, str], str] = {}

    def check(self, model: str, version: str, digest: str) -> None:
        """Remember the first digest of a name and version.

        Raises:
            ModelChanged: If another answered before.
        """
        before = self._digests.setdefault((model, version), digest) if digest else digest
        if before != digest:
            raise ModelChanged(
                f"expected {model or 'the model'} {version} to be {before} as before, got "
                f"{digest}: its vectors cannot be compared; connect again to accept it"
            )


def _bad_images(errors: dict[int, EmbedkitError], count: int) -> BadImage:
    shown = "; ".join(f"image {i}: {errors[i]}" for i in sorted(errors)[:_SHOWN_ERRORS])
    more = f"; and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    return BadImage(
        f"expected {count} readable images, got {len(errors)} bad: {shown}{more} "
        "(on_error='nan' embeds the others)"
    )


def _get(message: Message, field: str) -> tensor_pb2.Tensor | None:
    return getattr(message, field) if message.HasField(field) else None


Tensors = list[tensor_pb2.Tensor | None]


@dataclass(frozen=True)
class _Join:
    """Puts the tensors of several replies into one array per output.

    Attributes:
        bad: Ascending indices of bad images.
    """

    question: Question
    server: ServerInfo
    count: int
    replies: Replies
    bad: npt.NDArray[np.int64]

    def floats(self, output: str, tensors: Tensors) -> npt.NDArray[np.float32] | None:
        """Rows of an output, NaN for bad images; None if it was not asked for."""
        if output not in self.question.outputs:
            return None
        axes = "n t d" if output == "tokens" else "n d"
        parts = self._parts(tensors, axes, "float32")
        tail = parts[0][1].shape[1:] if parts else self._tail(output)
        return self._join(parts, np.full((self.count, *tail), np.nan, np.float32), np.nan)

    def scores(self, tensors: Tensors) -> Scores | None:
        """OOD scores, NaN for bad images; None if not asked for."""
        if "ood_score" not in self.question.outputs:
            return None
        parts = self._parts(tensors, "n", "float64")
        return self._join(parts, np.full(self.count, np.nan), np.nan)

    def labels(self, tensors: Tensors) -> Labels | None:
        """Classes, -1 for bad images; None if not asked for."""
        if "class" not in self.question.outputs:
            return None
        parts = self._parts(tensors, "n", "int64")
        return self._join(parts, np.full(self.count, -1, np.int64), -1)

    def _parts(self, tensors: Tensors, axes: str, dtype: str) -> list[tuple[int, Array]]:
        starts = (start for start, _ in self.replies)
        return [
            (start, decode_tensor(tensor, axes=axes, dtypes=(dtype,)))
            for start, tensor in zip(starts, tensors, strict=True)
            if tensor is not None
        ]

    def _join(
        self, parts: list[tuple[int, Array]], whole: npt.NDArray[_Value], fill: float
    ) -> npt.NDArray[_Value]:
        for start, part in parts:
            whole[start : start + len(part)] = part
        whole[self.bad] = fill
        return whole

    def _tail(self, output: str) -> tuple[int, ...]:
        """Shape of a row when no reply shows it: no image was given, or all were bad."""
        model = self.server.model(self.question.model, self.question.version)
        if output == "class":
            return (len(model.class_names),)
        if output == "tokens":
            return (0, model.dim)
        return (self.question.dims or model.dim if output == "embedding" else model.dim,)
