"""Everything that a server can be told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from embedkit.errors import InvalidInput
from embedkit.serve.access.auth import AuthConfig
from embedkit.serve.access.tls import TlsConfig
from embedkit.serve.engine import EngineConfig

__all__ = ["ServerConfig"]


@dataclass(frozen=True)
class ServerConfig:
    """Everything that ``embedkit serve`` can be told.

    Attributes:
        models: Folder of ``<name>/<version>`` bundles.
        data_dir: Folder of the collections.
        index_device: What searches collections; ``auto`` takes a GPU if FAISS can use one.
        bind: Address to serve on; port 0 takes a free one.
        metrics_bind: Address of ``/metrics``, or ``off``.
        load: ``NAME`` or ``NAME:VERSION`` each; empty for the latest of every model.
        engine: How models run.
        max_message_bytes: Largest request.
        max_images: Most images in one call.
        handlers: Calls handled at a time; each takes a thread.
        backlog: Calls that may wait for a handler; further ones are refused.
        max_streams: Streams at a time; each takes two threads of its own.
        stream_window: Requests under way in one stream; no further one is read meanwhile.
        oip: Whether the Open Inference Protocol is served too.
        auth: The credentials that callers need; by default none.
        tls: Certificate and key; by default the port is not encrypted.
        grace_s: Seconds that running calls get when the server stops.
        canary_s: Seconds between two signs of life asked of each model; 0 asks for none.
        canary_limit_s: Seconds after which a model counts as stuck and is restarted; more where
            its largest batch takes long.
        recall_s: Seconds between two measurements of the collections' recall; 0 for none.
        reflection: Whether clients may ask for the schema.
        access_log: Which calls are logged.
    """

    models: Path = Path("models")
    data_dir: Path = Path("var")
    bind: str = "127.0.0.1:50051"
    metrics_bind: str = "off"
    load: tuple[str, ...] = ()
    engine: EngineConfig = field(default_factory=EngineConfig)
    max_message_bytes: int = 32 << 20
    max_images: int = 1024
    handlers: int = 256
    backlog: int = 1024
    max_streams: int = 64
    stream_window: int = 16
    oip: bool = True
    auth: AuthConfig = field(default_factory=AuthConfig)
    tls: TlsConfig | None = None
    grace_s: float = 30.0
    canary_s: float = 10.0
    canary_limit_s: float = 30.0
    recall_s: float = 3600.0
    reflection: bool = True
    access_log: Literal["all", "errors", "off"] = "off"
    index_device: Literal["auto", "cpu", "gpu"] = "auto"

    def __post_init__(self) -> None:
        """Check the address.

        Raises:
            InvalidInput: If ``bind`` is neither ``HOST:PORT`` nor ``unix:PATH``.
        """
        host, _, port = self.bind.rpartition(":")
        is_port = host and port.isdigit() and int(port) < 1 << 16
        if not is_port and not self.bind.startswith("unix:"):
            raise InvalidInput(
                f"expected an address to serve on as HOST:PORT or unix:PATH, got {self.bind!r}"
            )
