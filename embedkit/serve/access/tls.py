"""TLS and mutual TLS of the port; certificates are read again when their files change."""

import logging
from dataclasses import dataclass
from pathlib import Path

import grpc

from embedkit.errors import InvalidInput
from embedkit.serve.observe.logs import event

__all__ = ["TlsConfig", "server_credentials"]

log = logging.getLogger(__name__)

_BEGIN = b"-----BEGIN "


@dataclass(frozen=True)
class TlsConfig:
    """Files in PEM form.

    Attributes:
        cert: The server's certificate, with the intermediate ones after it.
        key: Its private key.
        client_ca: Authorities whose certificates clients must show, or None to ask for none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


def server_credentials(config: TlsConfig) -> grpc.ServerCredentials:
    """Return what ``add_secure_port`` takes.

    Files that change are used from the next connection on; while they do not fit together, or
    cannot be read, the certificate read before stays in use.

    Raises:
        InvalidInput: If a file cannot be read, is no PEM, or certificate and key do not belong
            together.
    """
    files = _Files(config)
    return grpc.dynamic_ssl_server_credentials(
        files.first, files.changed, require_client_authentication=config.client_ca is not None
    )


class _Files:
    """Certificate, key and authorities as they were read last."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._stamps = self._look()
        self.first = self._read()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The files anew if they have changed; asked by gRPC before each handshake."""
        stamps = self._look()
        if stamps == self._stamps:
            return None
        self._stamps = stamps
        try:
            found = self._read()
        except InvalidInput as error:
            log.error("the certificate read before stays in use: %s", error)
            return None
        event(log, logging.INFO, "read the certificate again", file=str(self._config.cert))
        return found

    def _paths(self) -> tuple[Path, ...]:
        config = self._config
        return tuple(p for p in (config.cert, config.key, config.client_ca) if p is not None)

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when a file is written or replaced."""
        found: list[tuple[int, int, int] | None] = []
        for path in self._paths():
            try:
                now = path.stat()
                found.append((now.st_mtime_ns, now.st_size, now.st_ino))
            except OSError:
                found.append(None)
        return tuple(found)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        cert, key, *authorities = (_pem(path) for path in self._paths())
        _check_pair(self._config)
        return grpc.ssl_server_certificate_configuration(
            [(key, cert)], authorities[0] if authorities else None
        )


def _pem(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"expected to read {path}, got: {error}") from error
    if _BEGIN not in data:
        raise InvalidInput(f"expected certificates or a key in PEM form in {path}, got none")
    return data


def _check_pair(config: TlsConfig) -> None:
    """Refuse what OpenSSL refuses, with its words; gRPC's own refusal has none."""
    import ssl

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # No password: the server has nobody to ask.
        context.load_cert_chain(config.cert, config.key, password=lambda: "")
        if config.client_ca is not None:
            context.load_verify_locations(config.client_ca)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise InvalidInput(
            f"expected a certificate and its own unencrypted key in {config.cert} and "
            f"{config.key}, and certificates in the file of client authorities; got: {error}"
        ) from error
