"""A loaded bundle is an Embedder and a Scorer, and only loads if it says what it should."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import embedkit
from embedkit.bundle import Golden, Head
from embedkit.errors import BadImage, BundleDamaged, InvalidInput, NotFound
from embedkit.runtime.local import LocalModel, check_golden, load, softmax
from embedkit.types import Embedder, FeatureEmbedder, Scorer


def test_load_gives_the_bundles_embedder(write, images, embeddings_of, features_of) -> None:
    bundle = write()
    model = embedkit.load(bundle.path)
    assert isinstance(model, LocalModel)
    assert isinstance(model, Embedder)
    assert isinstance(model, FeatureEmbedder)
    assert isinstance(model, Scorer)
    assert (model.dim, model.digest, model.input) == (
        5,
        bundle.model_digest(),
        bundle.manifest.input,
    )
    np.testing.assert_allclose(model.embed(images), embeddings_of(images), atol=1e-6)
    np.testing.assert_allclose(model.features(images), features_of(images), atol=1e-4)


def test_score_answers_with_the_head(write, head: Head, images, features_of) -> None:
    model = load(write(heads_default_npz=head.to_bytes()).path)
    scores = model.score(images)
    logits = features_of(images) @ head.weight.T + head.bias
    powers = np.exp(logits)
    np.testing.assert_array_equal(scores.labels, logits.argmax(axis=1))
    np.testing.assert_allclose(
        scores.probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-5
    )
    assert scores.class_names == ("ant", "bee", "cat")
    assert scores.novelty is None


def test_a_supplied_novelty_sees_embeddings_features_and_logits(
    write, head: Head, images
) -> None:
    seen = {}

    def novelty(embeddings, features, logits):
        seen.update(embeddings=embeddings, features=features, logits=logits)
        return np.arange(len(embeddings), dtype=np.float64)

    model = load(write(heads_default_npz=head.to_bytes()).path, novelty=novelty)
    scores = model.score(images)
    np.testing.assert_array_equal(scores.novelty, np.arange(11))
    np.testing.assert_allclose(seen["embeddings"], model.embed(images), atol=1e-6)
    np.testing.assert_allclose(seen["logits"], head.logits(seen["features"]))

    without_head = load(write().path, novelty=novelty).score(images)
    assert without_head.labels is None
    assert without_head.probabilities is None
    assert seen["logits"] is None


def test_score_without_head_and_novelty_is_not_found(write, images) -> None:
    with pytest.raises(NotFound, match="--head DATA"):
        load(write().path).score(images)


@pytest.mark.parametrize(
    ("shift", "loads"), [(0.0, True), (0.9e-5, True), (1.2e-5, False), (np.nan, False)]
)
def test_golden_embeddings_decide_at_1e_5(write, embeddings_of, shift, loads: bool) -> None:
    golden = np.random.default_rng(0).integers(0, 256, (4, 4, 3, 1), dtype=np.uint8)
    expected = embeddings_of(golden).astype(np.float32)
    expected[2, 3] += shift
    bundle = write(golden_npz=Golden(golden, expected).to_bytes())
    if loads:
        model = load(bundle.path)
        assert check_golden(model.session, bundle) == pytest.approx(shift, abs=1e-6)
    else:
        with pytest.raises(BundleDamaged, match="expected golden embeddings"):
            load(bundle.path)


def test_another_graph_under_a_right_digest_is_noticed(write, graph) -> None:
    """A graph swapped by somebody who also rewrote the manifest: only golden can tell."""
    other = onnx.load_from_string(graph())
    weight = next(i for i in other.graph.initializer if i.name == "weight")
    weight.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight)[::-1], "weight")
    )
    bundle = write(model_onnx=other.SerializeToString())
    bundle.verify()
    with pytest.raises(BundleDamaged, match="golden embeddings"):
        load(bundle.path)


@pytest.mark.parametrize(
    "golden",
    [
        Golden(np.zeros((2, 5, 3, 1), np.uint8), np.zeros((2, 5), np.float32)),
        Golden(np.zeros((2, 4, 3, 1), np.uint8), np.zeros((3, 5), np.float32)),
        Golden(np.zeros((2, 4, 3, 1), np.uint8), np.zeros((2, 6), np.float32)),
    ],
)
def test_golden_of_another_shape_is_damage(write, golden: Golden) -> None:
    with pytest.raises(BundleDamaged, match="golden"):
        load(write(golden_npz=golden.to_bytes()).path)


def test_a_bundle_without_golden_is_damage(write) -> None:
    with pytest.raises(BundleDamaged, match=r"golden\.npz"):
        load(write(golden_npz=None).path)


def test_a_head_on_other_features_is_damage(write) -> None:
    wrong = Head(np.zeros((2, 6), np.float32), np.zeros(2, np.float32), ("a", "b"))
    with pytest.raises(BundleDamaged, match="head on 5 features"):
        load(write(heads_default_npz=wrong.to_bytes()).path)


def test_what_is_not_there_is_not_found(write, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load(tmp_path / "nothing")
    with pytest.raises(NotFound, match="'int8'"):
        load(write().path, precision="int8")
    with pytest.raises(InvalidInput, match="TensorrtExecutionProvider"):
        load(write().path, providers=["TensorrtExecutionProvider"])


def test_a_flipped_byte_is_found_with_and_without_verification(write) -> None:
    bundle = write(CARD_md=b"hello")
    (bundle.path / "CARD.md").write_bytes(b"hellO")
    with pytest.raises(BundleDamaged, match=r"CARD\.md"):
        load(bundle.path)
    load(bundle.path, verify=False)
    graph = bundle.path / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleDamaged, match=r"model\.onnx"):
        load(bundle.path, verify=False)


def test_softmax_survives_large_logits() -> None:
    rows = softmax(np.array([[1e4, 0.0, -1e4], [3.0, 3.0, 3.0]], np.float32))
    np.testing.assert_allclose(rows, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], atol=1e-7)
    assert rows.dtype == np.float32


def test_every_form_of_an_image_gives_the_same_embedding(write, tmp_path, rng):
    model = load(write().path)
    spec = model.input
    pixels = rng.integers(0, 256, spec.shape, dtype=np.uint8)
    picture = Image.fromarray(pixels[..., 0] if spec.channels == 1 else pixels)
    path = tmp_path / "image.png"
    picture.save(path)
    expected = model.embed(pixels[None])
    forms = [pixels, picture, path, str(path), path.read_bytes(), bytearray(path.read_bytes())]
    for form in forms:
        np.testing.assert_allclose(model.embed(form), expected, atol=1e-6)
    several = model.embed(forms * 15)
    assert several.shape == (90, model.dim)
    np.testing.assert_allclose(several, np.repeat(expected, 90, axis=0), atol=1e-6)
    assert model.embed([]).shape == (0, model.dim)


def test_a_bad_image_among_many_is_named_by_its_position(write, rng):
    model = load(write().path)
    good = rng.integers(0, 256, (100, *model.input.shape), dtype=np.uint8)
    with pytest.raises(BadImage, match="image 100"):
        model.embed([*good, b"no image"])
    with pytest.raises(NotFound, match="image 1 at"):
        model.embed([good[0], "/nowhere/image.png"])
