import json

import numpy as np
import onnxruntime
import pytest
import torch

from embedkit.encoders.encoder import Encoder, build_encoder, encoders
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec


def _config(height=16, width=16, channels=3, **arguments):
    spec = InputSpec(height=height, width=width, channels=channels)
    return {"name": "resnet", "input": spec.to_dict(), **arguments}


def _small(name: str) -> dict[str, object]:
    """Arguments that keep the tests of every architecture quick."""
    return {"name": name, **({"preset": "nano", "depth": 1} if name == "vit" else {})}


def _images(encoder: Encoder, n: int, rng: np.random.Generator) -> torch.Tensor:
    spec = encoder.input
    shape = (n, spec.height, spec.width, spec.channels)
    return torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))


def _settle(encoder: Encoder) -> Encoder:
    """Batch statistics away from 0 and 1, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(1)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return encoder.eval()


def test_registry_lists_the_architectures_and_not_the_contract():
    assert set(encoders.names()) >= {"resnet", "vit"}
    assert not {"encoder", "heads", "description"} & set(encoders.names())


@pytest.mark.parametrize("name", encoders.names())
def test_module_registers_its_own_name_and_describes_itself(name):
    assert encoders.get(name).__module__ == f"embedkit.encoders.{name}"
    assert encoders.summary(name)


@pytest.mark.parametrize("name", encoders.names())
@pytest.mark.parametrize(
    ("height", "width", "channels"), [(8, 8, 1), (28, 28, 1), (32, 32, 3), (17, 30, 3)]
)
def test_features_have_one_row_per_image(name, height, width, channels, rng):
    encoder = build_encoder({**_config(height, width, channels), **_small(name)}).eval()
    encoded = encoder(_images(encoder, 3, rng))
    assert encoded.features.shape == (3, encoder.feature_dim)
    assert torch.isfinite(encoded.features).all()
    assert (encoded.tokens is not None) == encoder.has_tokens


@pytest.mark.parametrize("name", encoders.names())
def test_an_image_is_encoded_the_same_in_any_company(name, rng):
    encoder = _settle(build_encoder({**_config(), **_small(name)}))
    images = _images(encoder, 6, rng)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    with torch.no_grad():
        together = encoder(images).features
        torch.testing.assert_close(encoder(images[order]).features, together[order])
        torch.testing.assert_close(encoder(images[2:3]).features, together[2:3])


def test_forward_is_unit_range_then_normalise_then_network(rng):
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    encoder = _settle(build_encoder(_config(mean=mean, std=std)))
    images = _images(encoder, 2, rng)
    expected = (images.numpy() / 255 - mean) / std
    by_hand = encoder.net(torch.from_numpy(expected).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(encoder(images).features, by_hand.features)


def test_to_unit_maps_0_and_255_to_the_ends_and_stays_channels_last():
    encoder = build_encoder(_config())
    images = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    images[..., 1] = 255
    pixels = encoder.to_unit(images)
    assert pixels.shape == (2, 3, 16, 16)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert pixels[:, 0].max() == 0
    assert pixels[:, 1].min() == 1


def test_encode_is_differentiable_in_the_pixels(rng):
    encoder = _settle(build_encoder(_config()))
    pixels = encoder.to_unit(_images(encoder, 2, rng)).requires_grad_()
    encoder.encode(pixels).features.square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().amax(dim=(1, 2, 3)).min() > 0


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 16, 16, 3),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(16, 16, 3, dtype=torch.uint8),
    ],
)
def test_forward_refuses_other_shapes_and_dtypes(images):
    with pytest.raises(InvalidInput, match=r"expected uint8 images \(n, 16, 16, 3\), got"):
        build_encoder(_config())(images)


@pytest.mark.parametrize("name", encoders.names())
def test_config_rebuilds_the_same_encoder_through_json(name):
    first = build_encoder({**_config(mean=0.3), **_small(name)}, seed=7)
    second = build_encoder(json.loads(json.dumps(first.config)), seed=7)
    assert second.config == first.config
    assert second.input == first.input
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_config_holds_every_default():
    config = build_encoder(_config()).config
    assert (config["preset"], config["blocks"], config["width"]) == ("tiny", [1, 1, 1], 24)
    assert config["mean"] == [0.5] * 3
    assert config["std"] == [0.25] * 3


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    zero, again, one = (build_encoder(_config(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    key = "net.conv1.weight"
    assert torch.equal(zero.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(zero.state_dict()[key], one.state_dict()[key])


def test_weights_leave_out_what_the_config_says():
    assert all(key.startswith("net.") for key in build_encoder(_config()).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnett"}, "unknown encoder 'resnett'; did you mean 'resnet'"),
        ({"widht": 3}, "unknown argument of encoder 'resnet' 'widht'; did you mean 'width'"),
        ({"width": "wide"}, "expected width of encoder 'resnet' as int"),
        ({"preset": "huge"}, "expected preset of encoder 'resnet'"),
        ({"mean": [0.5, 0.5]}, "expected mean as 3 numbers"),
        ({"mean": [0.5, 0.5, "x"]}, "expected mean as 3 numbers"),
        ({"std": 0}, r"std in \(0, 1\] of encoder 'resnet'"),
        ({"std": [58, 57, 57]}, "from 0 to 255 by 255"),
        ({"mean": float("nan")}, r"expected mean in \[0, 1\]"),
        ({"input": None}, "expected 'name' and 'input'"),
    ],
)
def test_wrong_configs_say_what_was_expected(change, message):
    with pytest.raises(InvalidInput, match=message):
        build_encoder({**_config(), **change})


class _Outputs(torch.nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features, tokens = self.encoder(images)
        return (features,) if tokens is None else (features, tokens)


@pytest.mark.parametrize(
    "arguments",
    [
        {
            "name": "resnet",
            "blocks": [1, 1],
            "block": "bottleneck",
            "shortcut": "A",
            "width": 8,
        },
        {"name": "vit", "preset": "nano", "depth": 1, "height": 15, "registers": 2},
    ],
    ids=["resnet", "vit"],
)
def test_exported_graph_agrees_at_every_batch_size(arguments, rng, tmp_path):
    encoder = _settle(build_encoder(_config(**arguments)))
    program = torch.onnx.export(
        _Outputs(encoder).eval(),
        (_images(encoder, 2, rng),),
        dynamo=True,
        input_names=["images"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "model.onnx", external_data=False)
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    for n in (1, 3, 16):
        images = _images(encoder, n, rng)
        with torch.no_grad():
            expected = _Outputs(encoder)(images)
        found = session.run(None, {"images": images.numpy()})
        for ours, theirs in zip(expected, found, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-5, rtol=1e-5)
