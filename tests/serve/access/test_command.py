"""The access options of ``embedkit serve``, from the environment and in a real process."""

import json
import os
import signal
import subprocess
import sys

import pytest

import embedkit
from embedkit.cli.options.access import AccessOptions
from embedkit.errors import InvalidInput, RateLimited, Unauthenticated
from embedkit.serve.access.auth import AuthConfig
from embedkit.serve.access.tls import TlsConfig

KEY, OTHER, ADMIN = "k" * 32, "o" * 32, "m" * 32
NOTHING = {
    "keys_file": None,
    "admin_token_file": None,
    "rate_limit": 0.0,
    "tls_cert": None,
    "tls_key": None,
    "tls_client_ca": None,
}


def chosen(**values):
    return AccessOptions(**{**NOTHING, **values})


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in ("EMBEDKIT_API_KEYS", "EMBEDKIT_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_without_options_there_is_nothing():
    assert chosen().auth() == AuthConfig()
    assert chosen().tls() is None


def test_keys_come_from_the_environment_between_commas_or_space(monkeypatch):
    monkeypatch.setenv("EMBEDKIT_API_KEYS", f"alice:{KEY},{OTHER}\n  bob:x,")
    monkeypatch.setenv("EMBEDKIT_ADMIN_TOKEN", ADMIN)
    auth = chosen(rate_limit=5.0).auth()
    assert auth.keys == (f"alice:{KEY}", OTHER, "bob:x")
    assert (auth.admin_tokens, auth.rate_limit) == ((ADMIN,), 5.0)


@pytest.mark.parametrize("variable", ["EMBEDKIT_API_KEYS", "EMBEDKIT_ADMIN_TOKEN"])
@pytest.mark.parametrize("value", ["", " ", ",\n"])
def test_a_variable_that_is_set_to_nothing_does_not_open_the_server(
    monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput, match=f"at least one key in {variable}.*unset it"):
        chosen().auth()


def test_a_rate_needs_keys():
    with pytest.raises(InvalidInput, match="--keys-file or EMBEDKIT_API_KEYS"):
        chosen(rate_limit=1.0).auth()


def test_certificate_and_key_come_together(tmp_path):
    cert, key, ca = (tmp_path / name for name in ("cert", "key", "ca"))
    assert chosen(tls_cert=cert, tls_key=key).tls() == TlsConfig(cert, key)
    assert chosen(tls_cert=cert, tls_key=key, tls_client_ca=ca).tls() == TlsConfig(
        cert, key, ca
    )
    for some in ({"tls_cert": cert}, {"tls_key": key}, {"tls_client_ca": ca}):
        with pytest.raises(InvalidInput, match="--tls-cert and --tls-key together"):
            chosen(**some).tls()


def test_a_process_asks_for_keys_over_tls_and_ends_well(
    tiny_models, tmp_path, authority, images
):
    ca = authority("ca")
    pair = ca.sign("server")
    (tmp_path / "keys").write_text(f"# who\nalice:{KEY}\n")
    (tmp_path / "admin").write_text(f"{ADMIN}\n")
    words = [sys.executable, "-m", "embedkit", "serve", "--models", str(tiny_models)]
    words += ["--data-dir", str(tmp_path / "var"), "--bind", "127.0.0.1:0"]
    words += ["--metrics-bind", "off", "--keys-file", str(tmp_path / "keys")]
    words += ["--admin-token-file", str(tmp_path / "admin"), "--rate-limit", "12"]
    words += ["--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]
    environment = {**os.environ, "EMBEDKIT_API_KEYS": f"bob:{OTHER}"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        try:
            line = running.stdout.readline()
            assert line, running.stderr.read()
            address = json.loads(line)["address"]

            def client(token):
                return embedkit.connect(address, token=token, tls=ca.cert, retry_s=0)

            for token in (None, "wrong" * 8):
                with client(token) as stranger, pytest.raises(Unauthenticated):
                    stranger.models()
            with client(KEY) as alice, pytest.raises(RateLimited):
                list(map(alice.embed, [images] * 12))
            with client(OTHER) as bob:
                assert bob.embed(images).shape == (5, 8)
            with client(ADMIN) as admin:
                assert admin.load_model("tiny").version == "1"
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
            log = running.stderr.read()
        finally:
            running.kill()
    assert "unloaded" not in log
    for secret in (KEY, OTHER, ADMIN):
        assert secret not in log
