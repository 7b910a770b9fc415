"""TLS and mutual TLS over real connections, from both clients and the command line."""

import asyncio
import json
import os

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

import embedkit
import embedkit.aio
from embedkit.cli import cli
from embedkit.errors import InvalidInput, Unavailable
from embedkit.serve.access.auth import AuthConfig
from embedkit.serve.access.tls import TlsConfig

KEY = "k" * 32


@pytest.fixture
def ca(authority):
    return authority("ca")


def embed(address, images, **options):
    with embedkit.connect(address, retry_s=0, timeout_s=10, **options) as client:
        return client.embed(images).shape


def test_a_client_that_trusts_the_authority_gets_answers(start, ca, images):
    _, address = start(tls=TlsConfig(*ca.sign("server")))
    assert embed(address, images, tls=ca.cert) == (5, 8)
    assert embed(address, images, tls=str(ca.cert)) == (5, 8)

    async def embed_async():
        async with embedkit.aio.connect(address, timeout_s=10, tls=ca.cert) as client:
            return (await client.embed(images)).shape

    assert asyncio.run(embed_async()) == (5, 8)


def test_whoever_does_not_speak_tls_or_trusts_others_is_not_answered(
    start, ca, authority, images
):
    _, address = start(tls=TlsConfig(*ca.sign("server")))
    for tls in (False, True, authority("other").cert):
        with pytest.raises(Unavailable):
            embed(address, images, tls=tls)


def test_a_name_of_another_host_is_trusted_only_if_it_is_named(start, ca, images):
    _, address = start(tls=TlsConfig(*ca.sign("server", host="embed.example")))
    with pytest.raises(Unavailable):
        embed(address, images, tls=ca.cert)
    tls = embedkit.Tls(ca=ca.cert, server_name="embed.example")
    assert embed(address, images, tls=tls) == (5, 8)


def test_mutual_tls_takes_certificates_of_its_authority_only(start, ca, authority, images):
    clients, strangers = authority("clients"), authority("strangers")
    tls = TlsConfig(*ca.sign("server"), client_ca=clients.cert)
    _, address = start(tls=tls)
    good = embedkit.Tls(ca.cert, *clients.sign("alice"))
    assert embed(address, images, tls=good) == (5, 8)
    for bad in (embedkit.Tls(ca.cert), embedkit.Tls(ca.cert, *strangers.sign("mallory"))):
        with pytest.raises(Unavailable):
            embed(address, images, tls=bad)


def test_a_renewed_certificate_is_used_from_the_next_connection_on(
    start, ca, authority, images, caplog
):
    pair = ca.sign("server")
    _, address = start(tls=TlsConfig(*pair))
    assert embed(address, images, tls=ca.cert) == (5, 8)
    renewed = authority("renewed")
    other = renewed.sign("server", file="other")
    pair.cert.write_bytes(other.cert.read_bytes())  # its key has not come yet
    assert embed(address, images, tls=ca.cert) == (5, 8)
    assert "the certificate read before stays in use" in caplog.text
    os.replace(other.key, pair.key)
    assert embed(address, images, tls=renewed.cert) == (5, 8)
    with pytest.raises(Unavailable):
        embed(address, images, tls=ca.cert)


def test_keys_health_and_calls_that_answer_later_work_over_tls(start, ca, images):
    auth = AuthConfig(keys=(KEY,))
    server, address = start(tls=TlsConfig(*ca.sign("server")), auth=auth)
    assert server._guard._direct is not None
    assert embed(address, images, tls=ca.cert, token=KEY) == (5, 8)
    credentials = grpc.ssl_channel_credentials(ca.cert.read_bytes())
    with grpc.secure_channel(address, credentials) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_every_command_that_talks_to_a_server_takes_the_same_options(
    start, ca, authority, monkeypatch
):
    clients = authority("clients")
    tls = TlsConfig(*ca.sign("server", host="embed.example"), client_ca=clients.cert)
    _, address = start(tls=tls, auth=AuthConfig(keys=(KEY,)))
    mine = clients.sign("alice")
    words = ["index", "list", "--json", "--server", address, "--tls-ca", str(ca.cert)]
    words += ["--tls-cert", str(mine.cert), "--tls-key", str(mine.key)]
    words += ["--tls-server-name", "embed.example", "--token", KEY]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == []
    for name, value in (
        ("TOKEN", KEY),
        ("TLS_CA", ca.cert),
        ("TLS_CERT", mine.cert),
        ("TLS_KEY", mine.key),
        ("TLS_SERVER_NAME", "embed.example"),
    ):
        monkeypatch.setenv(f"EMBEDKIT_{name}", str(value))
    result = CliRunner().invoke(cli, ["index", "list", "--json", "--server", address])
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_files_that_are_none_stop_the_start_and_the_client(start, ca, tmp_path):
    one, two = ca.sign("one"), ca.sign("two")
    (tmp_path / "text").write_text("no certificate")
    for tls, message in (
        (TlsConfig(one.cert, two.key), "a certificate and its own unencrypted key"),
        (TlsConfig(one.cert, tmp_path / "text"), "PEM form"),
        (TlsConfig(tmp_path / "absent", one.key), "expected to read"),
        (TlsConfig(*one, client_ca=one.key), "client authorities"),
    ):
        with pytest.raises(InvalidInput, match=message):
            start(tls=tls)
    for tls in (tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(InvalidInput):
            embedkit.connect("127.0.0.1:1", tls=tls)
    with pytest.raises(InvalidInput, match="certificate and its key"):
        embedkit.Tls(cert=one.cert)
