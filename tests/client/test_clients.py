"""Both clients through real gRPC: the same calls, the same answers, the same errors."""

import inspect
import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest

from embedkit.client import aio, sync
from embedkit.client.messages import ModelInfo
from embedkit.errors import (
    BadImage,
    Cancelled,
    DeadlineExceeded,
    EmbedkitError,
    InvalidInput,
    MessageTooLarge,
    ModelChanged,
    NotFound,
    QueueFull,
    Unavailable,
)
from tests.client.asking import Ask, images


def test_the_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: [p for p in inspect.signature(f).parameters if p != "meters"]
            for name, f in found
            if not name.startswith("_")
        }

    ours = methods(sync.Client)
    del ours["model"]  # an Embedder is synchronous
    assert methods(aio.Client) == ours
    assert (
        inspect.signature(sync.connect).parameters == inspect.signature(aio.connect).parameters
    )


def test_embed_gives_unit_vectors_in_order(ask: Ask, rng, embeddings_of) -> None:
    batch = images(rng, 5)
    got = ask("embed", batch, model="m")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, embeddings_of(batch), atol=1e-6)
    files = [b"one", b"two two", b"x"]
    np.testing.assert_allclose(ask("embed", files), embeddings_of(files), atol=1e-6)
    np.testing.assert_allclose(ask("embed", b"one"), embeddings_of([b"one"]), atol=1e-6)
    got[0] = 0  # the caller's own, writable array


def test_large_inputs_are_cut_and_several_chunks_are_in_flight(
    ask: Ask, rng, script, embeddings_of
) -> None:
    batch = images(rng, 64 * 9 + 3)
    script.delay_s = 0.02
    got = ask("embed", batch)
    np.testing.assert_allclose(got, embeddings_of(batch), atol=1e-6)
    assert [len(r.pixels.data) // 4 for r in script.requests] != [len(batch)]
    assert sum(len(r.pixels.data) // 4 for r in script.requests) == len(batch)
    assert script.most_at_once == 4


def test_messages_stay_below_the_servers_limit(ask: Ask, rng, script, embeddings_of) -> None:
    script.max_message_bytes = 200_000
    files = [rng.bytes(int(size)) for size in rng.integers(1, 60_000, 30)]
    got = ask("embed", files)
    np.testing.assert_allclose(got, embeddings_of(files), atol=1e-6)
    assert len(script.requests) > 5
    with pytest.raises(MessageTooLarge, match="image 1"):
        ask("embed", [b"x", b"y" * 200_000])


def test_mixed_forms_keep_their_order(ask: Ask, rng, tmp_path, embeddings_of) -> None:
    (tmp_path / "a").write_bytes(b"file")
    array = rng.integers(0, 256, (2, 2), dtype=np.uint8)
    mixed = [b"one", array, str(tmp_path / "a"), array[..., None], tmp_path / "a"]
    pixels = embeddings_of(array[None, ..., None])[0]
    file = embeddings_of([b"file"])[0]
    expected = [embeddings_of([b"one"])[0], pixels, file, pixels, file]
    np.testing.assert_allclose(ask("embed", mixed), expected, atol=1e-6)


@pytest.mark.parametrize("empty", [[], np.zeros((0, 2, 2, 1), np.uint8)])
def test_no_images_give_no_rows(ask: Ask, empty, script) -> None:
    assert ask("embed", empty).shape == (0, 4)
    assert ask("embed", empty, dims=3).shape == (0, 3)
    outputs = ask("infer", empty, outputs=("features", "class", "ood_score", "tokens"))
    assert outputs.features.shape == (0, 4)
    assert outputs.probabilities.shape == (0, 3)
    assert outputs.labels.shape == outputs.novelty.shape == (0,)
    assert script.requests == []
    with pytest.raises(NotFound, match="m:1"):
        ask("embed", empty, model="other")


def test_every_output(ask: Ask, rng, embeddings_of) -> None:
    batch = images(rng, 150)
    names = ("embedding", "features", "tokens", "ood_score", "class")
    got = ask("infer", batch, "m", outputs=names)
    features = batch.reshape(150, 4).astype(np.float32) + 1
    np.testing.assert_allclose(got.embeddings, embeddings_of(batch), atol=1e-6)
    assert np.array_equal(got.features, features)
    assert np.array_equal(got.tokens, features.reshape(150, 2, 2))
    assert np.array_equal(got.novelty, features.sum(axis=1))
    assert np.array_equal(got.labels, features.argmax(axis=1))
    assert got.labels.dtype == np.int64
    assert got.probabilities.shape == (150, 3)
    assert got.class_names == ("ant", "bee", "cat")
    assert (got.digest, got.errors) == ("sha256:one", {})
    plain = ask("infer", batch[:1])
    assert plain.features is plain.tokens is plain.labels is plain.novelty is None
    for wrong in (("embeddings",), (), ("embedding", "x")):
        with pytest.raises(InvalidInput, match="expected outputs"):
            ask("infer", batch, outputs=wrong)
    with pytest.raises(InvalidInput, match="on_error"):
        ask("embed", batch, on_error="ignore")


def test_bad_images_are_named(ask: Ask) -> None:
    files = [b"ok"] * 200
    for i in (3, 130, 131, 199):
        files[i] = b"bad"
    with pytest.raises(BadImage, match=r"200 .* got 4 bad: image 3: .*image 130: .*and 1 more"):
        ask("embed", files)
    with pytest.raises(BadImage, match="image 0"):
        ask("embed", b"bad")


def test_bad_images_become_nan_rows_on_request(ask: Ask, embeddings_of) -> None:
    files = [b"ok"] * 129
    files[7] = files[128] = b"bad"  # the last one is alone in its message
    got = ask("infer", files, on_error="nan", outputs=("embedding", "class", "ood_score"))
    assert sorted(got.errors) == [7, 128]
    assert all(isinstance(e, BadImage) for e in got.errors.values())
    bad = np.isin(np.arange(129), [7, 128])
    assert np.array_equal(np.isnan(got.embeddings).all(axis=1), bad)
    assert np.array_equal(np.isnan(got.embeddings).any(axis=1), bad)
    assert np.array_equal(np.isnan(got.novelty), bad)
    assert np.array_equal(got.labels == -1, bad)
    np.testing.assert_allclose(got.embeddings[0], embeddings_of([b"ok"])[0], atol=1e-6)
    alone = ask("embed", [b"bad"], on_error="nan")
    assert alone.shape == (1, 4)
    assert np.isnan(alone).all()


@pytest.mark.parametrize("failure", [Unavailable("draining"), QueueFull("full")])
def test_retryable_failures_are_repeated_and_counted(
    ask: Ask, rng, script, failure: EmbedkitError, embeddings_of
) -> None:
    script.failures = [failure] * 2
    batch = images(rng, 64 * 3)
    began = time.monotonic()
    np.testing.assert_allclose(ask("embed", batch), embeddings_of(batch), atol=1e-6)
    assert len(script.requests) == 5
    # RetryInfo: 50 ms for a full queue, 500 ms for a server that drains.
    assert time.monotonic() - began > (failure.retry_s or 0)


def test_other_failures_are_not_repeated(ask: Ask, rng, script) -> None:
    script.failures = [MessageTooLarge("too large"), RuntimeError("secret")]
    with pytest.raises(MessageTooLarge, match="too large"):
        ask("embed", images(rng, 1))
    with pytest.raises(EmbedkitError, match="internal error") as caught:
        ask("embed", images(rng, 1))
    assert "secret" not in str(caught.value)
    assert len(script.requests) == 2


def test_retries_end(connected, address: str, rng, script) -> None:
    ask = connected(address, retry_s=0.3)
    script.failures = [QueueFull("still full")] * 1000
    began = time.monotonic()
    with pytest.raises(QueueFull, match="still full"):
        ask("embed", images(rng, 1))
    assert time.monotonic() - began < 2
    assert len(script.requests) > 1
    ask = connected(address, retry_s=0)
    del script.requests[:]
    with pytest.raises(QueueFull):
        ask("embed", images(rng, 1))
    assert len(script.requests) == 1


def test_a_server_that_is_away_for_a_moment_is_waited_for(
    ask: Ask, running, rng, embeddings_of
) -> None:
    batch = images(rng, 3)
    ask("embed", batch)
    running.stop()
    timer = threading.Timer(0.7, running.start)
    timer.start()
    np.testing.assert_allclose(ask("embed", batch), embeddings_of(batch), atol=1e-6)
    timer.join()


def test_no_server_at_all(connected, running) -> None:
    running.stop()
    ask = connected(running.address, retry_s=0.2)
    with pytest.raises(Unavailable):
        ask("collections")


def test_a_slow_answer_is_not_waited_for(connected, address: str, rng, script) -> None:
    ask = connected(address, timeout_s=0.3)
    script.delay_s = 5.0
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        ask("embed", images(rng, 1))
    assert time.monotonic() - began < 3
    script.delay_s = 0.0


def test_a_failure_cancels_what_is_under_way(ask: Ask, rng, script) -> None:
    script.failures = [InvalidInput("no")]
    script.delay_s = 0.05
    with pytest.raises(InvalidInput, match="no"):
        ask("embed", images(rng, 64 * 40))
    assert len(script.requests) < 12


def test_another_model_between_chunks_or_calls_is_noticed(ask: Ask, rng, script) -> None:
    ask("embed", images(rng, 1), model="m")
    script.digest = "sha256:two"
    for _ in range(2):
        with pytest.raises(ModelChanged, match=r"sha256:one .* sha256:two"):
            ask("embed", images(rng, 1), model="m")
    assert ask("embed", images(rng, 1), model="").shape == (1, 4)


def test_a_model_that_changes_within_a_call_is_noticed(ask: Ask, script) -> None:
    class Switching(list[Any]):
        """Behaves as the list of requests; the third request changes the model."""

        def append(self, request: Any) -> None:
            super().append(request)
            if len(self) == 3:
                script.digest = "sha256:two"

    script.requests = Switching()
    with pytest.raises(ModelChanged, match=r"sha256:one.*sha256:two|sha256:two.*sha256:one"):
        ask("embed", [b"x"] * 64 * 5)


def test_the_token_travels(connected, address: str, script) -> None:
    connected(address, token="s3cret")("embed", b"x")
    assert script.metadata["authorization"] == "Bearer s3cret"
    connected(address)("embed", b"x")
    assert "authorization" not in script.metadata


@pytest.mark.parametrize(
    "wrong", ["localhost", "", "localhost:", ":50051", "localhost:http", "http://a:5"]
)
def test_an_address_without_a_port_is_refused(connected, wrong: str) -> None:
    with pytest.raises(InvalidInput, match="HOST:PORT"):
        connected(wrong)


def test_models_are_described(ask: Ask) -> None:
    (model,) = ask("models")
    assert isinstance(model, ModelInfo)
    assert (model.name, model.version, model.dim, model.digest) == ("m", "1", 4, "sha256:one")
    assert (model.input.height, model.input.width, model.input.channels) == (2, 2, 1)
    assert model.outputs == ("embedding", "features", "tokens", "ood_score", "class")
    assert model.manifest["name"] == "m"
    assert (model.ood_detector, model.ood_threshold) == ("knn", 0.5)


def test_a_closed_client_says_so(connected, address: str) -> None:
    ask = connected(address)
    ask("collections")
    ask("close")
    with pytest.raises(Cancelled, match="connect again"):
        ask("collections")


def test_replies_larger_than_grpcs_default(ask: Ask, rng) -> None:
    """gRPC clients refuse replies of more than 4 MiB unless told otherwise."""
    ask("create_collection", "c", dim=4)
    payload = {"text": "x" * 60_000}
    ids = [f"id-{i}" for i in range(100)]
    ask("upsert", "c", ids, vectors=rng.standard_normal((100, 4)), payloads=[payload] * 100)
    assert len(ask("search", "c", vectors=np.ones(4), k=100)[0]) == 100


def test_a_call_that_the_server_does_not_know(connected) -> None:
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ask = connected(f"127.0.0.1:{port}")
    with pytest.raises(EmbedkitError, match="does not know this call"):
        ask("collections")
    server.stop(None).wait()
