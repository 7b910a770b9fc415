"""Models that come and go while the server runs, and no caller left without an answer."""

import asyncio
import gc
import io
import json
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import embedkit
import embedkit.aio
from embedkit.bundle import derive_bundle
from embedkit.cli import cli
from embedkit.errors import (
    BundleDamaged,
    InvalidInput,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from embedkit.serve.access.auth import AuthConfig
from embedkit.serve.answer import Query
from embedkit.serve.config import ServerConfig
from embedkit.serve.engine import Engine
from embedkit.serve.server import Server
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2, embedding_pb2_grpc

ADMIN = "m" * 32


@pytest.fixture
def models(tmp_path, write_tiny):
    """A folder with two versions of one model, which differ."""
    write_tiny(tmp_path / "models")
    write_tiny(tmp_path / "models", version=2, seed=1)
    return tmp_path / "models"


@pytest.fixture
def engine(models):
    made = Engine()
    made.load(models / "tiny" / "1")
    yield made
    made.close(10)


@pytest.fixture
def server(models, tmp_path):
    auth = AuthConfig(admin_tokens=(ADMIN,))
    made = Server(
        ServerConfig(
            models=models,
            data_dir=tmp_path / "var",
            bind="127.0.0.1:0",
            load=("tiny:1",),
            auth=auth,
        )
    )
    made.address = f"127.0.0.1:{made.start()}"
    yield made
    made.stop(5)


@pytest.fixture
def admin(server):
    with embedkit.connect(server.address, token=ADMIN, retry_s=0) as client:
        yield client


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def versions(engine):
    return [m.version for m in engine.models]


# The engine


def test_the_highest_version_is_the_latest_and_the_others_stay(engine, models, write_tiny):
    write_tiny(models, version=10, seed=2)
    for version in (10, 2):
        engine.load(models / "tiny" / str(version))
    assert versions(engine) == ["1", "2", "10"]
    assert engine.get("tiny").version == "10"
    assert engine.get("", "2").version == "2"
    engine.unload("tiny", "10")
    assert engine.get("tiny").version == "2"
    engine.unload("tiny", "1")
    engine.unload("tiny")
    with pytest.raises(NotFound, match="got 'tiny'"):
        engine.get("tiny")
    assert engine.models == ()


def test_unloading_names_one_loaded_version(engine, models):
    engine.load(models / "tiny" / "2")
    with pytest.raises(InvalidInput, match=r"one of the versions \['1', '2'\]"):
        engine.unload("tiny")
    for name, version in (("tiny", "3"), ("other", ""), ("", ""), ("x" * 100_000, "y" * 9)):
        with pytest.raises(NotFound) as caught:
            engine.unload(name, version)
        assert len(str(caught.value)) < 300
    assert versions(engine) == ["1", "2"]


def test_a_version_that_fails_its_checks_changes_nothing(engine, models, images):
    before = engine.get("tiny")
    damage(models / "tiny" / "2" / "model.onnx")
    with pytest.raises(BundleDamaged, match=r"model\.onnx"):
        engine.load(models / "tiny" / "2")
    damage(models / "tiny" / "1" / "golden.npz")
    with pytest.raises(BundleDamaged):
        engine.load(models / "tiny" / "1")
    assert engine.get("tiny") is before
    assert engine.embed("tiny", images)[0].shape == (5, 8)


def test_a_version_read_again_takes_its_own_place_and_both_answer(engine, images, models):
    before = engine.get("tiny")
    engine.load(models / "tiny" / "1")
    after = engine.get("tiny")
    assert after is not before
    assert after.digest == before.digest
    assert versions(engine) == ["1"]
    for model in (before, after):
        assert model.infer(Query(images)).rows["embedding"].shape == (5, 8)


def test_an_unloaded_model_answers_whoever_holds_it_and_then_ends(engine, models, images):
    engine.load(models / "tiny" / "2")
    held = engine.get("tiny", "1")
    engine.unload("tiny", "1")
    answers, answered = [], threading.Event()

    def done(answer):
        answers.append(answer)
        answered.set()

    time.sleep(0.05)  # it had no work at all for a while
    held.begin(Query(images), done)
    assert answered.wait(10)
    assert answers[0].rows["embedding"].shape == (5, 8)
    threads = held.worker._threads
    session = weakref.ref(held.crew.sessions[0])
    gc.disable()
    try:
        del held
        wait_for(lambda: not any(thread.is_alive() for thread in threads))
        wait_for(lambda: session() is None)  # its memory is free, without a collection
    finally:
        gc.enable()


def test_a_closed_engine_loads_nothing_and_leaves_no_thread(models):
    made = Engine()
    made.close(10)
    before = set(threading.enumerate())
    with pytest.raises(Unavailable, match="shutting down"):
        made.load(models / "tiny" / "1")
    assert made.models == ()
    assert set(threading.enumerate()) <= before


# Over the wire


def test_a_version_is_loaded_becomes_the_latest_and_is_given_up(
    server, admin, images, reference
):
    old = admin.embed(images, "tiny", version="1")
    np.testing.assert_allclose(old, unit(reference(images, 0)), atol=1e-5)
    made = admin.load_model("tiny")
    assert (made.name, made.version, made.dim) == ("tiny", "2", 8)
    assert [m.version for m in admin.models()] == ["1", "2"]
    with embedkit.connect(server.address) as other:
        new = other.embed(images, "tiny")
    np.testing.assert_allclose(new, unit(reference(images, 1)), atol=1e-5)
    np.testing.assert_array_equal(admin.embed(images, "tiny", version="1"), old)
    admin.unload_model("tiny", "1")
    with pytest.raises(NotFound):
        admin.embed(images, "tiny", version="1")
    assert [m.version for m in admin.models()] == ["2"]


@pytest.mark.parametrize(
    ("name", "version", "error"),
    [
        ("", "", InvalidInput),
        ("..", "1", InvalidInput),
        ("../models/tiny", "1", InvalidInput),
        ("/etc", "", InvalidInput),
        ("tiny/1", "", InvalidInput),
        ("tiny\0", "1", InvalidInput),
        ("Tiny", "1", InvalidInput),
        ("t" * 65, "1", InvalidInput),
        ("other", "", NotFound),
        ("tiny", "3", NotFound),
        ("tiny", "../tiny/1", NotFound),
        ("tiny", "01", NotFound),
        ("tiny", "-1", NotFound),
        ("tiny", "1 ", NotFound),
    ],
)
def test_only_names_and_versions_in_the_folder_are_loaded(admin, name, version, error):
    with pytest.raises(error):
        admin.load_model(name, version)
    assert [m.version for m in admin.models()] == ["1"]


def test_a_damaged_version_is_told_and_the_old_one_goes_on(admin, models, images):
    damage(models / "tiny" / "2" / "model.onnx")
    with pytest.raises(BundleDamaged, match=r"model\.onnx"):
        admin.load_model("tiny", "2")
    assert admin.embed(images, "tiny").shape == (5, 8)


def test_a_derived_version_with_the_same_graph_keeps_the_digest(admin, server, models, head):
    from embedkit.bundle import Bundle

    made = derive_bundle(Bundle(models / "tiny" / "1"), {"heads/more.npz": head.to_bytes()})
    loaded = admin.load_model("tiny", str(made.manifest.version))
    assert loaded.heads == ("default", "more")
    assert loaded.digest == server.engine.get("tiny", "1").digest


def test_without_the_admin_token_nothing_is_loaded(server, images):
    with embedkit.connect(server.address, retry_s=0) as client:
        assert client.embed(images).shape == (5, 8)
        for call in (lambda: client.load_model("tiny"), lambda: client.unload_model("tiny")):
            with pytest.raises(PermissionDenied, match="expected the admin token"):
                call()


def test_the_asyncio_client_loads_and_unloads(server):
    async def run():
        async with embedkit.aio.connect(server.address, token=ADMIN) as client:
            made = await client.load_model("tiny", "2")
            await client.unload_model("tiny", "1")
            return made.version, [m.version for m in await client.models()]

    assert asyncio.run(run()) == ("2", ["2"])


def test_the_command_loads_lists_and_unloads(server):
    def run(*words):
        line = ["model", *words, "--server", server.address, "--token", ADMIN]
        result = CliRunner().invoke(cli, line)
        assert result.exit_code == 0, f"{result.output} {result.exception!r}"
        return result.stdout

    assert run("load", "tiny").startswith("loaded tiny:2 sha256:")
    assert run("list").splitlines() == [
        "tiny:1  8 dimensions  fp32  CPU",
        "tiny:2  8 dimensions  fp32  CPU",
    ]
    assert run("unload", "tiny:1") == "unloaded tiny:1\n"
    (left,) = json.loads(run("list", "--json"))
    assert (left["name"], left["version"], left["input"]["height"]) == ("tiny", "2", 4)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_no_request_is_lost_while_versions_come_and_go_under_64_callers(
    server, admin, reference, channel
):
    """Every caller gets the right embedding of some version that was loaded, and no error."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8) for n in (1, 2, 5, 16)]
    expected = {v: [unit(reference(i, v - 1)) for i in images] for v in (1, 2)}
    requests = [
        embedding_pb2.EmbedRequest(model="tiny", pixels=encode_tensor(i)) for i in images
    ]
    # Files are decoded between the finding of the model and its queue: a wide gap to fall into.
    for i in (0, 3):
        requests[i].encoded.data.extend(png(image) for image in images[i])
    stubs = [
        embedding_pb2_grpc.EmbeddingServiceStub(
            channel(server.address, ("grpc.use_local_subchannel_pool", 1))
        )
        for _ in range(4)
    ]
    stopping = threading.Event()

    def caller(number):
        kind, answers = number % len(images), []
        while not stopping.is_set():
            reply = stubs[number // 16].Embed(requests[kind], timeout=20)
            rows = np.frombuffer(reply.embeddings.data, "<f4").reshape(-1, 8)
            right = [v for v, e in expected.items() if np.abs(rows - e[kind]).max() < 1e-4]
            assert len(right) == 1, "an answer of no version, or of a mixture"
            answers += right
        return answers

    with ThreadPoolExecutor(64) as pool:
        callers = [pool.submit(caller, number) for number in range(64)]
        try:
            time.sleep(0.3)
            for new, old in ((2, 1), (1, 2)) * 4:
                admin.load_model("tiny", str(new))
                admin.load_model("tiny", str(new))  # read again, in its own place
                admin.unload_model("tiny", str(old))
                time.sleep(0.1)
        finally:
            stopping.set()
        answers = [one.result(30) for one in callers]
    assert all(answers)
    assert {v for a in answers for v in a} == {1, 2}
    assert versions(server.engine) == ["1"]
    wait_for(lambda: sum(t.name.startswith("model-tiny") for t in threading.enumerate()) == 1)
