"""Both clients through real gRPC: the same calls, the same answers, the same errors."""

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from embedkit.client import aio, sync
from embedkit.client.messages import ModelInfo
from embedkit.errors import (
    AlreadyExists,
    BadImage,
    Cancelled,
    DeadlineExceeded,
    EmbedkitError,
    InvalidInput,
    MessageTooLarge,
    ModelChanged,
    ModelMismatch,
    NotFound,
    QueueFull,
    Unavailable,
)
from embedkit.types import Collection, Hit, Record

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "aio"])
def connected(request: pytest.FixtureRequest) -> Iterator[Callable[..., Ask]]:
    """Connect with either client; ``ask(method, ...)`` calls a method and waits for it."""
    closing: list[Callable[[], None]] = []

    def connect_sync(address: str, **options: Any) -> Ask:
        client = sync.connect(address, **options)
        closing.append(client.close)
        return lambda method, *a, **k: getattr(client, method)(*a, **k)

    def connect_aio(address: str, **options: Any) -> Ask:
        runner = asyncio.Runner()
        closing.append(runner.close)

        async def make() -> aio.Client:
            return aio.connect(address, **options)

        client = runner.run(make())
        closing.append(lambda: runner.run(client.close()))

        async def act(method: str, *a: Any, **k: Any) -> Any:
            return await getattr(client, method)(*a, **k)

        return lambda method, *a, **k: runner.run(act(method, *a, **k))

    yield connect_sync if request.param == "sync" else connect_aio
    for close in reversed(closing):
        close()


@pytest.fixture
def ask(connected: Callable[..., Ask], address: str) -> Ask:
    return connected(address)


def images(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)


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


@pytest.mark.parametrize("wrong", ["localhost", "", "localhost:", ":50051", "localhost:http"])
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


def test_the_life_of_a_collection(ask: Ask, rng) -> None:
    made = ask("create_collection", "c", dim=4, metric="l2")
    assert made == Collection("c", 4, "l2")
    vectors = rng.standard_normal((3, 4)).astype(np.float32)
    payloads = [{"n": 2**60, "t": "ä"}, None, {}]
    assert ask("upsert", "c", ["a", "b", "c"], vectors=vectors, payloads=payloads) == 1
    hits = ask("search", "c", vectors=vectors, k=2)
    assert [h[0].id for h in hits] == ["a", "b", "c"]
    assert hits[0][0] == Hit("a", 0.0, {"n": 2**60, "t": "ä"})
    assert hits[1][0].payload is None
    assert hits[2][0].payload == {}
    single = ask("search", "c", vectors=vectors[0], k=1, with_payload=False)
    assert single == [[Hit("a", 0.0, None)]]
    got = ask("get", "c", ["b", "nobody", "a"])
    assert got[1] is None
    assert isinstance(got[0], Record)
    assert got[0].vector is not None
    assert got[0].vector.tobytes() == vectors[1].tobytes()
    assert (got[2].payload, got[2].sequence) == ({"n": 2**60, "t": "ä"}, 1)
    assert ask("get", "c", ["a"], with_vectors=False)[0].vector is None
    assert ask("delete", "c", ["a", "nobody", "a"]) == 1
    assert ask("describe", "c") == Collection("c", 4, "l2", count=2, sequence=2)
    assert ask("collections") == [ask("describe", "c")]
    assert ask("compact", "c") >= 0
    with pytest.raises(AlreadyExists):
        ask("create_collection", "c", dim=4)
    ask("drop_collection", "c")
    assert ask("collections") == []
    with pytest.raises(NotFound):
        ask("describe", "c")


def test_images_are_stored_and_searched(ask: Ask, rng) -> None:
    made = ask("create_collection", "c", model="m")
    assert (made.dim, made.model, made.model_digest) == (4, "m", "sha256:one")
    files = [rng.bytes(20) for _ in range(150)]
    ids = [f"file-{i}" for i in range(150)]
    ask("upsert", "c", ids, images=files, payloads=[{"i": i} for i in range(150)])
    hits = ask("search", "c", images=files, k=1)
    assert [h[0].id for h in hits] == ids
    assert [h[0].payload["i"] for h in hits] == list(range(150))
    with pytest.raises(BadImage, match="images 64 to 127: "):
        ask("upsert", "c", ids, images=[*files[:70], b"bad", *files[71:]])
    with pytest.raises(ModelMismatch):
        ask("search", "c", vectors=np.ones(4), model_digest="sha256:other")


def test_filters_choose_what_is_found_and_what_is_deleted(ask: Ask, rng) -> None:
    ask("create_collection", "c", dim=4)
    vectors = rng.standard_normal((6, 4)).astype(np.float32)
    payloads = [{"n": 2**60 + i, "odd key": {"t": "it's"}} for i in range(6)]
    ask("upsert", "c", list("abcdef"), vectors=vectors, payloads=payloads)
    (hits,) = ask("search", "c", vectors=vectors[0], filter=f"n > {2**60 + 3}")
    assert {hit.id for hit in hits} == {"e", "f"}
    (hits,) = ask("search", "c", vectors=vectors[0], filter="\"odd key\".t = 'it''s'")
    assert hits[0].id == "a"
    assert len(hits) == 6
    assert ask("delete", "c", filter=f"n in ({2**60}, {2**60 + 1})") == 2
    assert ask("delete", "c", filter="") == 0
    assert [r is None for r in ask("get", "c", list("abc"))] == [True, True, False]


def test_large_upserts_searches_and_lookups_are_cut(ask: Ask, rng, script) -> None:
    script.max_message_bytes = 1_000_000
    ask("create_collection", "c", dim=64)
    vectors = rng.standard_normal((5000, 64)).astype(np.float32)
    ids = [f"id-{i}" for i in range(5000)]
    payloads = [{"text": "x" * int(n)} for n in rng.integers(0, 300, 5000)]
    sequence = ask("upsert", "c", ids, vectors=vectors, payloads=payloads)
    after = ask("describe", "c")
    assert after.count == 5000
    assert after.sequence == sequence > 2
    got = ask("get", "c", ids)
    assert all(r.vector.tobytes() == v.tobytes() for r, v in zip(got, vectors, strict=True))
    assert [r.payload for r in got] == payloads
    hits = ask("search", "c", vectors=vectors[:700], k=3)
    assert [h[0].id for h in hits] == ids[:700]
    assert ask("delete", "c", ids[:4000]) == 4000
    assert ask("describe", "c").count == 1000


ONE = np.ones(4)
REFUSED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("upsert", {"ids": "a", "vectors": np.ones((1, 4))}, r"write \['a'\]"),
    ("upsert", {"ids": [1], "vectors": np.ones((1, 4))}, r"str\(1\)"),
    ("upsert", {"ids": ["a", "b"], "vectors": np.ones((1, 4))}, "2 vectors"),
    ("upsert", {"ids": ["a", "a"], "vectors": np.ones((2, 4))}, "'a' twice"),
    ("upsert", {"ids": ["a"]}, "neither"),
    ("upsert", {"ids": ["a"], "vectors": np.ones((1, 4)), "images": b"x"}, "both"),
    ("upsert", {"ids": ["a"], "vectors": np.ones((1, 1, 4))}, r"\(n, d\)"),
    ("upsert", {"ids": ["a"], "vectors": [["x"]]}, r"\(n, d\)"),
    ("upsert", {"ids": ["a"], "vectors": ONE, "payloads": [1]}, "payload 0"),
    (
        "upsert",
        {"ids": ["a"], "vectors": ONE, "payloads": [{"x": {1}}]},
        "payload 0",
    ),
    (
        "upsert",
        {"ids": ["a"], "vectors": ONE, "payloads": [{"x": float("nan")}]},
        "payload 0",
    ),
    ("upsert", {"ids": ["a"], "vectors": ONE, "payloads": []}, "1 payloads"),
    ("upsert", {"ids": ["a"], "vectors": np.zeros(4)}, "zeros in row 0"),
    ("upsert", {"ids": ["a"], "vectors": np.ones(5)}, r"\(n, 4\)"),
    ("search", {"vectors": ONE, "k": 0}, "whole number of at least 1"),
    ("search", {"vectors": ONE, "k": -1}, "whole number of at least 1"),
    ("search", {"vectors": ONE, "filter": "a == 1"}, "did you mean '='"),
    ("search", {}, "neither"),
    ("delete", {"ids": "a"}, r"write \['a'\]"),
    ("delete", {"ids": ["a"], "filter": "a = 1"}, "ids or a filter"),
    ("delete", {"filter": "a ="}, "got the end"),
    ("get", {"ids": [None]}, "ids as text"),
)


def test_what_does_not_fit_is_refused(ask: Ask) -> None:
    ask("create_collection", "c", dim=4)
    for method, values, message in REFUSED:
        with pytest.raises(InvalidInput, match=message):
            ask(method, "c", **values)
    assert ask("describe", "c") == Collection("c", 4)
    with pytest.raises(InvalidInput, match="metric"):
        ask("create_collection", "d", dim=4, metric="hamming")


@pytest.mark.parametrize("k", [2.5, 0, -1, "3", 2**32])
def test_a_k_that_is_no_count_is_refused(ask: Ask, k) -> None:
    with pytest.raises(InvalidInput, match="whole number of at least 1"):
        ask("search", "photos", vectors=[0.0, 1.0], k=k)


@pytest.mark.parametrize("dims", [2.5, -1, "3"])
def test_dims_that_are_no_count_are_refused(ask: Ask, rng, dims) -> None:
    images = rng.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    with pytest.raises(InvalidInput, match="whole number of at least 0"):
        ask("embed", images, dims=dims)


def test_an_id_that_is_no_text_for_others_is_refused(ask: Ask) -> None:
    with pytest.raises(InvalidInput, match="UTF-8"):
        ask("get", "photos", ["\udcff"])


def test_nothing_to_write_writes_nothing(ask: Ask) -> None:
    ask("create_collection", "c", dim=4)
    assert ask("upsert", "c", [], vectors=np.ones((0, 4))) == 0
    assert ask("delete", "c", []) == 0
    assert ask("get", "c", []) == []
    assert ask("search", "c", vectors=np.ones((0, 4))) == []


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
