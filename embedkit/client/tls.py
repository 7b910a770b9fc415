"""How a client knows its server, and shows the server who it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from embedkit.errors import InvalidInput

__all__ = ["Tls", "TlsChoice", "open_channel"]


@dataclass(frozen=True)
class Tls:
    """What a connection with TLS needs beside an address; files are in PEM form.

    Attributes:
        ca: Authorities that may vouch for the server; by default those that gRPC ships.
        cert: The client's own certificate, where the server asks for one.
        key: The private key of ``cert``.
        server_name: Name in the server's certificate, where it differs from the address.

    Raises:
        InvalidInput: If only one of ``cert`` and ``key`` is given.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        """Check that certificate and key come together."""
        if (self.cert is None) != (self.key is None):
            raise InvalidInput(
                f"expected a client certificate and its key, got cert={self.cert} and "
                f"key={self.key}"
            )


TlsChoice = bool | str | Path | Tls
"""False for no TLS, True for public authorities, a file of authorities, or everything."""

Options = tuple[tuple[str, int | str], ...]


def open_channel(library: Any, address: str, tls: TlsChoice, options: Options) -> Any:  # noqa: ANN401
    """Return a channel of ``grpc`` or ``grpc.aio``, whichever library is given.

    Raises:
        InvalidInput: If a file cannot be read.
    """
    if tls is False:
        return library.insecure_channel(address, options=options)
    chosen = tls if isinstance(tls, Tls) else Tls() if tls is True else Tls(ca=tls)
    if chosen.server_name:
        options = (*options, ("grpc.ssl_target_name_override", chosen.server_name))
    credentials = grpc.ssl_channel_credentials(
        _read(chosen.ca), _read(chosen.key), _read(chosen.cert)
    )
    return library.secure_channel(address, credentials, options=options)


def _read(path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"expected to read {path}, got: {error}") from error
    # gRPC would only say that it cannot connect, again and again.
    if b"-----BEGIN " not in data:
        raise InvalidInput(f"expected PEM form in {path}, got none")
    return data
