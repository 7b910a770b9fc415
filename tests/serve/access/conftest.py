"""Certificates made for the test, and servers that ask for credentials."""

import datetime as dt
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from embedkit.serve.config import ServerConfig
from embedkit.serve.server import Server


class Pair(NamedTuple):
    """Files of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates that are good for an hour."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.cert = folder / f"{name}.pem"
        made = _certificate(name, self._key, name, self._key, is_authority=True)
        self.cert.write_bytes(made)

    def sign(self, name: str, *, host: str = "localhost", file: str = "") -> Pair:
        """A certificate for a host name, and for 127.0.0.1 if that is localhost."""
        key = ec.generate_private_key(ec.SECP256R1())
        pair = Pair(
            self.folder / f"{file or name}.cert.pem", self.folder / f"{file or name}.key.pem"
        )
        pair.cert.write_bytes(_certificate(name, key, self.name, self._key, host=host))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    host: str = "",
    is_authority: bool = False,
) -> bytes:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if host:
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host == "localhost":
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(issuer_key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path: Path) -> Callable[[str], Authority]:
    """Make an authority by name."""
    return lambda name: Authority(tmp_path, name)


@pytest.fixture
def start(tiny_models: Path, tmp_path: Path):
    """Start servers that are stopped after the test; returns the server and its address."""
    servers: list[Server] = []

    def start_one(**values: object) -> tuple[Server, str]:
        base = {"models": tiny_models, "data_dir": tmp_path / "var", "bind": "127.0.0.1:0"}
        servers.append(Server(ServerConfig(**{**base, **values})))
        return servers[-1], f"127.0.0.1:{servers[-1].start()}"

    yield start_one
    for server in servers:
        server.stop(5)
