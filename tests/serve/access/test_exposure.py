"""What is said of a server that strangers can reach."""

from pathlib import Path

import pytest

from embedkit.serve.access.auth import AuthConfig
from embedkit.serve.access.exposure import warn_of_exposure
from embedkit.serve.access.tls import TlsConfig

KEYS = AuthConfig(keys=("k" * 32,))
ADMIN_ONLY = AuthConfig(admin_tokens=("m" * 32,))
TLS = TlsConfig(Path("cert"), Path("key"))
MUTUAL = TlsConfig(Path("cert"), Path("key"), Path("ca"))


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1", "unix:/s"]
)
def test_loopback_is_quiet(bind, caplog):
    warn_of_exposure(bind, AuthConfig(), None)
    assert not caplog.text


@pytest.mark.parametrize("bind", ["0.0.0.0:1", "[::]:1", "192.0.2.7:1", "host.example:1"])
@pytest.mark.parametrize(
    ("auth", "tls", "words"),
    [
        (AuthConfig(), None, ("ANYONE WHO REACHES", "neither TLS nor keys")),
        (ADMIN_ONLY, None, ("ANYONE WHO REACHES", "neither TLS nor keys")),
        (AuthConfig(), TLS, ("ANYONE WHO REACHES", "no keys", "--tls-client-ca")),
        (KEYS, None, ("ANYONE ON THE WAY", "no TLS", "--tls-cert")),
        (KEYS, TLS, ()),
        (AuthConfig(), MUTUAL, ()),
    ],
)
def test_wider_addresses_are_told_what_is_missing(bind, auth, tls, words, caplog):
    warn_of_exposure(bind, auth, tls)
    assert bool(caplog.text) == bool(words)
    for word in (*words, bind) if words else ():
        assert word in caplog.text
