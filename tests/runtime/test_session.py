"""Sessions against the same network in float64 numpy, from one thread and from many."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from embedkit.errors import BadImage, BundleDamaged, InvalidInput
from embedkit.preprocess import prepare
from embedkit.runtime.session import CHUNK_IMAGES, Session
from embedkit.types import Embedder, FeatureEmbedder


@pytest.fixture
def session(graph, spec) -> Session:
    return Session(graph(), "sha256:1", spec, threads=1)


def test_it_is_an_embedder_that_says_what_it_is(session: Session, spec) -> None:
    assert isinstance(session, Embedder)
    assert isinstance(session, FeatureEmbedder)
    assert (session.dim, session.digest, session.input) == (5, "sha256:1", spec)
    assert session.provider == "CPUExecutionProvider"
    assert session.outputs == {"embedding": (5,), "features": (5,)}


@pytest.mark.parametrize("n", [0, 1, 2, CHUNK_IMAGES, CHUNK_IMAGES + 1, 3 * CHUNK_IMAGES - 1])
def test_any_number_of_images_in_their_order(
    session: Session, rng, embeddings_of, features_of, n: int
) -> None:
    images = rng.integers(0, 256, (n, 4, 3, 1), dtype=np.uint8)
    embeddings, features = session.embed(images), session.features(images)
    assert embeddings.shape == features.shape == (n, 5)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, embeddings_of(images), atol=1e-6)
    np.testing.assert_allclose(features, features_of(images), rtol=1e-5, atol=1e-5)


def test_a_zero_vector_stays_zero(session: Session) -> None:
    black = np.zeros((1, 4, 3, 1), np.uint8)
    np.testing.assert_array_equal(session.embed(black), np.zeros((1, 5)))


def test_run_gives_only_the_wanted_outputs(session: Session, images, features_of) -> None:
    result = session.run(images, ["features"])
    assert list(result) == ["features"]
    np.testing.assert_allclose(result["features"], features_of(images), rtol=1e-5, atol=1e-5)


def test_views_and_strides_are_taken_as_they_look(session: Session, rng, embeddings_of) -> None:
    wide = rng.integers(0, 256, (20, 4, 6, 1), dtype=np.uint8)
    view = wide[::-2, :, ::2]
    np.testing.assert_allclose(
        session.run(view, ["embedding"])["embedding"], embeddings_of(view), atol=1e-6
    )


def test_files_and_other_sizes_are_prepared(session: Session, images, embeddings_of) -> None:
    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[:, :, 0]).save(buffer, "PNG")
        files.append(buffer.getvalue())
    np.testing.assert_allclose(session.embed(files), embeddings_of(images), atol=1e-6)
    larger = images.repeat(2, axis=1).repeat(2, axis=2)
    expected = embeddings_of(prepare(larger, session.input))
    np.testing.assert_allclose(session.embed(larger), expected, atol=1e-6)


def test_a_bad_file_is_named_by_its_place_in_the_whole(session: Session, images) -> None:
    buffer = io.BytesIO()
    Image.fromarray(images[0, :, :, 0]).save(buffer, "PNG")
    files = [buffer.getvalue()] * 70
    files[66] = b"no image"
    with pytest.raises(BadImage, match=r"images 64 to 69: image 2 of 6"):
        session.embed(files)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 1), np.uint8),
        np.zeros((1, 4, 3, 3), np.uint8),
        np.zeros((1, 4, 3, 1), np.float32),
        [[1, 2]],
    ],
)
def test_run_refuses_anything_but_its_own_input(session: Session, wrong) -> None:
    with pytest.raises(InvalidInput, match=r"expected uint8 images"):
        session.run(wrong, ["embedding"])


def test_an_unknown_output_is_refused(session: Session, images) -> None:
    with pytest.raises(InvalidInput, match=r"embedding.*features.*tokens"):
        session.run(images, ["tokens"])
    with pytest.raises(InvalidInput, match="expected outputs"):
        session.run(images, [])


def test_many_threads_get_their_own_answers(session: Session, rng, embeddings_of) -> None:
    batches = [rng.integers(0, 256, (1 + i % 9, 4, 3, 1), dtype=np.uint8) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(session.embed, batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer, embeddings_of(batch), atol=1e-6)


def test_a_missing_provider_is_an_error_not_a_fallback(graph, spec) -> None:
    with pytest.raises(InvalidInput, match="NoSuchProvider"):
        Session(graph(), "", spec, providers=["NoSuchProvider", "CPUExecutionProvider"])
    with pytest.raises(InvalidInput, match="execution providers"):
        Session(graph(), "", spec, providers=[])


def test_fewer_than_one_thread_is_refused(graph, spec) -> None:
    with pytest.raises(InvalidInput, match="at least 1 thread, got 0"):
        Session(graph(), "", spec, threads=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 1}, "fixed n"),
        ({"dtype": TensorProto.FLOAT}, "uint8"),
        ({"outputs": ("embedding",)}, "embedding and features"),
        ({"outputs": ("features", "linear")}, "embedding and features"),
        ({"name": "x"}, "one input images"),
        ({"rows": 6}, "one input images"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused(graph, spec, changes, message) -> None:
    with pytest.raises(BundleDamaged, match=message):
        Session(graph(**changes), "", spec)


@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x0a" * 40])
def test_bytes_that_are_no_graph_are_refused(spec, data: bytes) -> None:
    with pytest.raises(BundleDamaged, match="expected a graph"):
        Session(data, "", spec)


def test_a_cut_graph_is_refused(graph, spec) -> None:
    with pytest.raises(BundleDamaged):
        Session(graph()[:-30], "", spec)


@pytest.mark.parametrize("absolute", [False, True])
def test_weights_in_another_file_are_refused(
    graph, spec, tmp_path: Path, monkeypatch, absolute: bool
) -> None:
    """A graph that points at a file beside it must not read that file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(240))
    model = onnx.load_from_string(graph())
    weight = next(i for i in model.graph.initializer if i.name == "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(
        key="location", value=str(tmp_path / "secret") if absolute else "secret"
    )
    with pytest.raises(BundleDamaged):
        Session(model.SerializeToString(), "", spec)


def test_code_in_a_graph_is_not_known(spec) -> None:
    node = helper.make_node("PyOp", ["images"], ["embedding"], domain="com.evil")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "evil",
        [value("images", TensorProto.UINT8, ["n", 4, 3, 1])],
        [value("embedding", TensorProto.FLOAT, ["n", 5])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.evil", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    with pytest.raises(BundleDamaged, match=r"PyOp|evil"):
        Session(model.SerializeToString(), "", spec)


def test_nothing_in_runtime_imports_torch() -> None:
    code = (
        "import sys, embedkit.runtime.local, embedkit.runtime.parity, embedkit.runtime.probe\n"
        "print([m for m in ('torch', 'onnx', 'sklearn', 'click', 'grpc') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
