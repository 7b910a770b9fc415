"""From a run folder to a bundle that loads, scores and says where it comes from."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_weights
from safetensors.torch import save_file

from embedkit.bundle import Bundle, Head
from embedkit.data.source import Dataset, load_dataset
from embedkit.detect.detector import Observation, load_detector
from embedkit.detect.threshold import Threshold
from embedkit.encoders.encoder import Encoder, build_encoder
from embedkit.errors import AlreadyExists, InvalidInput, NotFound, ParityFailed
from embedkit.export.bundling import Target
from embedkit.export.onnx import OPSET
from embedkit.export.precisions import Precisions
from embedkit.export.reference import TorchReference
from embedkit.export.run import export_run
from embedkit.export.source import Source
from embedkit.export.training_images import training_images
from embedkit.runtime.local import load


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits").subset(range(400))


def test_a_run_becomes_a_bundle_with_head_and_detectors(
    run_folder: Path, tmp_path: Path, digits: Dataset
) -> None:
    bundle = export_run(
        run_folder,
        name="digits",
        models=tmp_path / "models",
        head=digits,
        detectors=("knn", "mahalanobis"),
    )
    assert bundle.path == tmp_path / "models" / "digits" / "1"
    assert set(bundle.manifest.files) == {
        "CARD.md",
        "detectors/knn.npz",
        "detectors/mahalanobis.npz",
        "encoder.safetensors",
        "golden.npz",
        "heads/default.npz",
        "model.onnx",
        "parity.json",
        "recipe.toml",
    }
    check_manifest(bundle, run_folder)
    check_scores(bundle)
    check_twin(bundle)


def check_manifest(bundle: Bundle, run: Path) -> None:
    manifest = bundle.manifest
    assert (manifest.dim, manifest.objective, manifest.data_digest) == (
        16,
        "simclr",
        "sha256:abc",
    )
    assert manifest.outputs == {"embedding": [16], "features": [16]}
    assert manifest.versions["opset"] == str(OPSET)
    assert bundle.read("recipe.toml") == (run / "recipe.toml").read_bytes()
    record = json.loads(bundle.read("parity.json"))
    assert record["max_abs_error"] <= record["limit"] == 1e-5
    assert record["real_images"] == "digits"
    assert record["inputs"]["real"]["n"] == 256
    card = bundle.read("CARD.md").decode()
    for text in ("# digits, version 1", "8 x 8 px, grey", "simclr", "12.35", "10 classes"):
        assert text in card
    assert str(run.parent) not in card


def check_scores(bundle: Bundle) -> None:
    model = load(bundle.path)
    test = load_dataset("digits:test")
    scores = model.score(test.images)
    # An untrained network on real digits is far above the chance of 0.1.
    assert (scores.labels == test.labels).mean() > 0.5
    assert scores.class_names == test.class_names
    for name in bundle.names("detectors"):
        arrays = bundle.arrays(f"detectors/{name}.npz")
        threshold = Threshold.from_arrays(arrays)
        observation = Observation(model.embed(test.images), model.features(test.images))
        novelty = load_detector(name, arrays).score(observation)
        assert threshold is not None
        assert 0.8 < (novelty <= threshold.value).mean() <= 1


def check_twin(bundle: Bundle) -> None:
    encoder = build_encoder(bundle.manifest.encoder)
    encoder.load_state_dict(load_weights(bundle.read("encoder.safetensors")))
    golden = bundle.golden()
    np.testing.assert_allclose(
        TorchReference(encoder).embed(golden.images), golden.embeddings, atol=1e-6
    )
    assert len({image.tobytes() for image in golden.images}) == len(golden.images) == 8


def test_a_second_version_with_the_runs_own_classifier_and_lost_training_images(
    run_folder: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    own = own_head(rng)
    (run_folder / "head.npz").write_bytes(own.to_bytes())
    (run_folder / "recipe.toml").write_text('[data]\nsource = "/gone/photos"\n')
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "manifest.json").write_text("{}")
    bundle = export_run(run_folder, name="m", models=tmp_path)
    assert bundle.manifest.version == 2
    assert bundle.names("heads") == ("default",)
    np.testing.assert_array_equal(bundle.head().weight, own.weight)
    assert json.loads(bundle.read("parity.json"))["real_images"] == "digits"


@pytest.mark.parametrize("kind", ["array", "folder"])
def test_streamed_training_images_are_read_as_the_recipe_reads_them(
    run_folder: Path, tmp_path: Path, kind: str
) -> None:
    """The tail of the data is black: it lies beyond ``data.limit``."""
    digits = load_dataset("digits")
    assert isinstance(digits.images, np.ndarray)
    images = np.concatenate([digits.images[:40], np.zeros((9, 8, 8, 1), np.uint8)])
    data = tmp_path / ("data.npy" if kind == "array" else "data")
    if kind == "array":
        np.save(data, images)
    else:
        data.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image[..., 0]).save(data / f"{number:02}.png")
        (data / "05.png").write_bytes(b"no image")
    recipe = f'seed = 0\n[data]\nsource = "{data}"\nlimit = 40\nstream = true\n'
    (run_folder / "recipe.toml").write_text(recipe)
    wanted = Precisions(("int8",))
    bundle = export_run(run_folder, name="m", models=tmp_path / "m", precisions=wanted)
    record = json.loads(bundle.read("parity.json"))
    count = 40 if kind == "array" else 39
    assert (record["real_images"], record["inputs"]["real"]["n"]) == ("data", count)
    calibration = record["precisions"]["int8"]["calibration"]
    assert calibration == {"data": "data", "images": count}


def test_of_a_long_stream_evenly_spaced_images_are_read(
    kinds: Callable[..., Encoder], tmp_path: Path
) -> None:
    images = np.zeros((2000, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(2000) // 10
    np.save(tmp_path / "x.npy", images)
    recipe = b"[data]\nstream = true\n"
    data = str(tmp_path / "x.npy")
    found = training_images(Source(kinds("resnet"), recipe=recipe, data=data))
    assert found is not None
    assert len(found) == 512
    assert isinstance(found.images, np.ndarray)
    assert set(found.images[:, 0, 0, 0].tolist()) == set(range(200))


def test_the_limit_of_the_recipe_holds_for_data_in_memory(
    kinds: Callable[..., Encoder],
) -> None:
    recipe = b"[data]\nlimit = 30\n"
    found = training_images(Source(kinds("resnet"), "", recipe=recipe, data="digits"))
    assert found is not None
    spec = kinds("resnet").input
    assert np.array_equal(found.arrays(spec), load_dataset("digits").arrays(spec)[:30])
    assert training_images(Source(kinds("resnet"))) is None


def own_head(rng: np.random.Generator) -> Head:
    weight = rng.standard_normal((10, 16)).astype(np.float32)
    return Head(weight, np.zeros(10, np.float32), tuple("abcdefghij"))


def test_a_taken_version_is_refused_before_the_work(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m" / "3").mkdir(parents=True)
    with pytest.raises(AlreadyExists, match="--version"):
        export_run(run_folder, name="m", models=tmp_path, version=3)
    assert Target(tmp_path, "m").next_version() == 1
    assert Target(tmp_path, "m", 7).next_version() == 7


@pytest.mark.parametrize(
    "name", ["encoder.json", "encoder.safetensors", "run.json", "recipe.toml"]
)
def test_an_unfinished_run_says_what_is_missing(
    run_folder: Path, tmp_path: Path, name: str
) -> None:
    (run_folder / name).unlink()
    with pytest.raises(NotFound, match=f"finished training run with {name}.*--resume"):
        export_run(run_folder, name="m", models=tmp_path)


def test_weights_of_another_architecture_and_damaged_ones_are_refused(
    run_folder: Path, tmp_path: Path
) -> None:
    weights = (run_folder / "encoder.safetensors").read_bytes()
    config = json.loads((run_folder / "encoder.json").read_text())
    (run_folder / "encoder.json").write_text(json.dumps({**config, "width": 4}))
    with pytest.raises(InvalidInput, match="size mismatch"):
        export_run(run_folder, name="m", models=tmp_path)
    (run_folder / "encoder.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"encoder\.json"):
        export_run(run_folder, name="m", models=tmp_path)
    (run_folder / "encoder.json").write_text(json.dumps(config))
    (run_folder / "encoder.safetensors").write_bytes(weights[:50])
    with pytest.raises(InvalidInput, match=r"encoder\.safetensors"):
        export_run(run_folder, name="m", models=tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn"])
def test_a_damaged_classifier_of_the_run_is_named(
    run_folder: Path, tmp_path: Path, content: bytes
) -> None:
    (run_folder / "head.npz").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"classifier in .*head\.npz.*delete it"):
        export_run(run_folder, name="m", models=tmp_path)


def test_wrong_additions_are_refused_before_anything_is_written(
    run_folder: Path, tmp_path: Path, digits: Dataset
) -> None:
    models = tmp_path / "models"
    unlabelled = Dataset("plain", digits.images)
    with pytest.raises(InvalidInput, match="plain without labels"):
        export_run(run_folder, name="m", models=models, head=unlabelled)
    with pytest.raises(InvalidInput, match="--detector-data"):
        export_run(run_folder, name="m", models=models, detectors=("knn",))
    with pytest.raises(InvalidInput, match="did you mean 'knn'"):
        export_run(run_folder, name="m", models=models, head=digits, detectors=("knnn",))
    with pytest.raises(InvalidInput, match="model name"):
        export_run(run_folder, name="../up", models=models)
    assert not models.exists()


def test_weights_that_are_not_finite_fail_parity(run_folder: Path, tmp_path: Path) -> None:
    path = run_folder / "encoder.safetensors"
    state = load_weights(path.read_bytes())
    state["net.conv1.weight"][0] = torch.nan
    save_file(state, path)
    with pytest.raises(ParityFailed, match="got inf"):
        export_run(run_folder, name="m", models=tmp_path / "models")
    assert not (tmp_path / "models").exists()
