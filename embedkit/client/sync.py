"""The synchronous client."""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TypeVar

from embedkit.client.channel import EMBED_STREAM
from embedkit.client.connection import Connection
from embedkit.client.images import ImageInput
from embedkit.client.index.sync import IndexCalls
from embedkit.client.inference import (
    OnError,
    Outputs,
    Question,
    SeenModels,
    embeddings_of,
    infer,
)
from embedkit.client.messages import (
    ModelInfo,
    Plan,
    ServerInfo,
    get_model,
    list_models,
    load_model,
    unload_model,
)
from embedkit.client.meter import Meter
from embedkit.client.retry import RetryPolicy
from embedkit.client.served import ServedModel
from embedkit.client.tls import TlsChoice
from embedkit.client.window import Window, bulk_plans
from embedkit.types import Embeddings, Usage

__all__ = ["Client", "connect"]

Result = TypeVar("Result")


def connect(
    address: str,
    *,
    timeout_s: float | None = 60.0,
    retry_s: float = 10.0,
    token: str | None = None,
    tls: TlsChoice = False,
) -> "Client":
    """Return a client of the server at an address; nothing is sent yet.

    Args:
        address: ``HOST:PORT``.
        timeout_s: Seconds that one request may take, retries included; None for no limit.
        retry_s: Seconds in which a request is repeated while the server is unreachable,
            draining or full; 0 never repeats.
        token: API key, or the server's admin token; sent with every call.
        tls: False for none; True to trust the authorities that gRPC ships; the file of an
            authority's certificate; or an ``embedkit.Tls`` with a client's certificate too.

    Raises:
        InvalidInput: If the address or the token has another form, or a file cannot be read.

    Example:
        >>> import embedkit
        >>> with embedkit.connect("localhost:50051") as client:
        ...     client.usage.calls
        0
    """
    return Client(address, RetryPolicy(timeout_s, retry_s), token=token, tls=tls)


class Client(IndexCalls):
    """A connection to one server; safe to use from many threads.

    Large inputs are cut into several requests, a few of which are under way at a time. Every
    method raises the typed errors of ``embedkit.errors``; ``Unavailable`` and ``QueueFull``
    only after the time for retries has passed. A repeated request may be executed twice. Writes
    of vectors give the same result then; a repeated ``create_collection`` may find its own
    collection and raise ``AlreadyExists``.

    Args:
        address: ``HOST:PORT``.
        policy: How long to try.
        token: Sent with every call.
        tls: Whether and how to encrypt; see :func:`connect`.
    """

    def __init__(
        self,
        address: str,
        policy: RetryPolicy | None = None,
        *,
        token: str | None = None,
        tls: TlsChoice = False,
    ) -> None:
        self._connection = Connection(address, policy or RetryPolicy(), token, tls)
        self._meter = Meter()
        self._seen = SeenModels()
        self._server: ServerInfo | None = None

    def embed(
        self,
        images: ImageInput,
        model: str = "",
        *,
        version: str = "",
        dims: int = 0,
        on_error: OnError = "raise",
    ) -> Embeddings:
        """Return L2-normalised embeddings, (n, d) float32, in the order given.

        Args:
            images: A uint8 array (n, h, w, c), or one or a list of: uint8 array (h, w, c) or
                (h, w), file content as bytes, path, Pillow image. Any size.
            model: May be empty where the server has one model.
            version: Empty for the latest.
            dims: Keep the first dimensions, normalised again; 0 keeps all.
            on_error: ``raise`` BadImage if any image is bad, or give those ``nan`` rows.

        Raises:
            BadImage: Names the images that cannot be decoded.
            InvalidInput: If the images have no known form.
            ModelChanged: If another model answers than before on this client.
            NotFound: If there is no such model.
        """
        outputs = self.infer(
            images, model, version=version, dims=dims, on_error=on_error, outputs=("embedding",)
        )
        return embeddings_of(outputs)

    def embed_stream(
        self,
        batches: Iterable[ImageInput],
        model: str = "",
        *,
        version: str = "",
        dims: int = 0,
        on_error: OnError = "raise",
    ) -> Iterator[Embeddings]:
        """Embed batch after batch on one stream; yields the embeddings of each, in order.

        For more images than fit into memory: a batch is taken when there is room for it, a few
        ahead of the one that is yielded. The server answers others' calls first.

        Args:
            batches: Each what ``embed`` takes.
            model: May be empty where the server has one model.
            version: Empty for the latest.
            dims: Keep the first dimensions, normalised again; 0 keeps all.
            on_error: As for ``embed``.

        Raises:
            EmbedkitError: As ``embed``; the stream ends then.
        """
        question = Question(model, version, ("embedding",), dims, on_error)
        window = Window(bulk_plans(batches, question, self.server()))
        for outputs in self._stream(window):
            self._seen.check(model, version, outputs.digest)
            yield embeddings_of(outputs)

    def infer(
        self,
        images: ImageInput,
        model: str = "",
        *,
        version: str = "",
        outputs: Sequence[str] = ("embedding",),
        dims: int = 0,
        on_error: OnError = "raise",
    ) -> Outputs:
        """Return any of ``embedding features tokens ood_score class``; otherwise as embed."""
        question = Question(model, version, tuple(outputs), dims, on_error)
        result = self.run(infer(images, question, self.server()))
        self._seen.check(model, version, result.digest)
        return result

    def models(self) -> tuple[ModelInfo, ...]:
        """Every model that the server has loaded."""
        self._server = self.run(list_models())
        return self._server.models

    def model(self, name: str = "", version: str = "") -> ServedModel:
        """Return one model as an ``Embedder``.

        Raises:
            NotFound: If there is no such model.
        """
        return ServedModel(self, name, version, self.run(get_model(name, version)))

    def load_model(self, name: str, version: str = "") -> ModelInfo:
        """Have the server load a version from its models folder; needs the admin token.

        Returns once the version has passed its checks, was warmed up and is in use. Versions
        that were loaded before stay, but requests without a version reach the highest one.

        Args:
            name: Of the model.
            version: Empty for the latest in the folder; one that is loaded is read again.

        Raises:
            NotFound: If the folder has no such version.
            BundleDamaged: If it is not what its manifest says; nothing has changed then.
            PermissionDenied: If the token is not the admin token.
        """
        self._server = None
        return self.run(load_model(name, version))

    def unload_model(self, name: str, version: str = "") -> None:
        """Have the server give a version up; needs the admin token.

        Calls that reached it before are answered.

        Args:
            name: Of the model.
            version: May be empty where one version is loaded.

        Raises:
            NotFound: If it is not loaded.
            InvalidInput: If ``version`` is empty and several are loaded.
            PermissionDenied: If the token is not the admin token.
        """
        self.run(unload_model(name, version))
        self._server = None

    @property
    def usage(self) -> Usage:
        """What this client has asked so far."""
        return self._meter.usage

    def server(self) -> ServerInfo:
        """What the server has and accepts, asked once."""
        if self._server is None:
            self._server = self.run(list_models())
        return self._server

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, plan: Plan[Result], *meters: Meter) -> Result:
        """Send a plan's requests and return its result; the meters count them too."""
        return self._connection.run(plan, self._meter, *meters)

    def _stream(self, window: Window[Result], method: str = EMBED_STREAM) -> Iterator[Result]:
        return self._connection.stream(window, self._meter, method=method)
