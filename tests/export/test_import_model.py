"""Imported models: a published network keeps the accuracy it was published with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedkit.data.source import load_dataset
from embedkit.errors import InvalidInput
from embedkit.export.bundling import Additions, Target, bundle_source
from embedkit.export.import_model import Architecture, import_torch
from embedkit.export.onnx import export_graph
from embedkit.export.source import Source
from embedkit.runtime.local import load
from embedkit.runtime.session import Session

IMAGENET = Architecture("resnet20", (32, 32, 3), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SMALL = Architecture(
    '{"name": "resnet", "blocks": [1], "width": 4, "mean": 0.5, "std": 0.25}', (8, 8, 1)
)


@pytest.fixture(scope="module")
def published(test_data: Path) -> Source:
    """The published CIFAR-10 ResNet-20 with its classifier."""
    weights = test_data / "weights" / "resnet20_cifar10.safetensors"
    if not weights.is_file():
        pytest.skip(f"no published weights at {weights}")
    classes = load_dataset(f"{test_data}/cifar10.zip:test").class_names
    return import_torch(weights, IMAGENET, class_names=classes)


def test_the_published_network_keeps_its_accuracy(published: Source, test_data: Path) -> None:
    test = load_dataset(f"{test_data}/cifar10.zip:test").subset(range(500))
    session = Session(export_graph(published.encoder), "", published.encoder.input)
    assert published.head is not None
    predicted = published.head.logits(session.features(test.images)).argmax(axis=1)
    # 91.73 % on all 10,000; three standard errors of 500 images are 3.7 points.
    assert abs((predicted == test.labels).mean() - 0.9173) < 0.037


@pytest.mark.slow
def test_the_published_network_keeps_its_accuracy_to_the_last_image(
    published: Source, test_data: Path, tmp_path: Path
) -> None:
    test = load_dataset(f"{test_data}/cifar10.zip:test")
    known = test.subset(range(0, 10_000, 40))
    bundle = bundle_source(published, Target(tmp_path, "resnet20"), Additions(known=known))
    scores = load(bundle.path).score(test.images)
    assert scores.class_names == test.class_names
    assert (scores.labels == test.labels).mean() == pytest.approx(0.9173, abs=5e-5)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    encoder = SMALL.build()
    state = {name.removeprefix("net."): value for name, value in encoder.state_dict().items()}
    state |= {"fc.weight": torch.rand(3, 4), "fc.bias": torch.rand(3)}
    save_file(state, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_a_linear_classifier_among_the_weights_is_the_head(weights: Path) -> None:
    source = import_torch(weights, SMALL, class_names=("a", "b", "c"), licence="MIT")
    assert source.head is not None
    assert source.head.weight.shape == (3, 4)
    assert source.head.class_names == ("a", "b", "c")
    assert (source.objective, source.licence) == ("external", "MIT")
    named = import_torch(weights, SMALL, head_keys=("fc.weight", "fc.bias"))
    assert named.head is not None
    np.testing.assert_array_equal(named.head.weight, source.head.weight)
    assert named.head.class_names == ("0", "1", "2")


def test_misfits_between_file_head_and_classes_are_refused(weights: Path) -> None:
    with pytest.raises(InvalidInput, match="3 class names for the classifier, got 2"):
        import_torch(weights, SMALL, class_names=("a", "b"))
    with pytest.raises(InvalidInput, match=r"head keys \['head\.weight'"):
        import_torch(weights, SMALL, head_keys=("head.weight", "head.bias"))


def test_tensors_without_a_place_are_refused_unless_a_mapping_left_them_out(
    weights: Path, tmp_path: Path
) -> None:
    state = load_file(weights) | {"projector.weight": torch.rand(9, 9)}
    path = tmp_path / "more.safetensors"
    save_file(state, path)
    for keys in (None, ("fc.weight", "fc.bias")):
        with pytest.raises(InvalidInput, match=r"projector\.weight"):
            import_torch(path, SMALL, head_keys=keys)
    names = {
        name: f"net.{name}" for name in state if name.split(".")[0] not in ("fc", "projector")
    }
    (tmp_path / "names.json").write_text(json.dumps(names))
    source = import_torch(path, SMALL, mapping=tmp_path / "names.json")
    assert source.head is None


def test_head_keys_that_are_no_linear_classifier_are_refused(weights: Path) -> None:
    state = load_file(weights) | {"scale": torch.rand(3), "shift": torch.rand(3)}
    save_file(state, weights)
    with pytest.raises(InvalidInput, match="one linear classifier"):
        import_torch(weights, SMALL, head_keys=("scale", "shift"))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Architecture("resnet20", None, (0.5,), (0.25,)), "--input"),
        (Architecture("resnet20", (8, 8, 1), None, (0.25,)), "--mean"),
        (Architecture("resnet20", (8, 8, 1), (0.5,), None), "--std"),
        (Architecture("resnet21", (8, 8, 1), (0.5,), (0.25,)), "resnet:resnet20"),
        (Architecture("tiny", (8, 8, 1), (0.5,), (0.25,)), "vit:tiny"),
        (Architecture("{", (8, 8, 1)), "JSON"),
        (Architecture("resnet20", (8, 8, 3), (0.5,), (0.25,)), "mean"),
    ],
)
def test_an_incomplete_architecture_says_what_is_missing(architecture, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        architecture.build()


@pytest.mark.parametrize("text", ["resnet20", "resnet:resnet20"])
def test_presets_are_found_by_their_name(text: str) -> None:
    encoder = Architecture(text, (32, 32, 3), (0.5,) * 3, (0.25,) * 3).build()
    assert encoder.feature_dim == 64
    assert Architecture("vit:nano", (8, 8, 1), (0.5,), (0.2,)).build().has_tokens
    assert Architecture("vit", (8, 8, 1), (0.5,), (0.2,)).build().feature_dim == 192
