import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from embedkit.encoders.encoder import Backbone
from embedkit.encoders.resnet import ResNet
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec

_RGB32 = InputSpec(height=32, width=32, channels=3)


def _net(**arguments) -> Backbone:
    torch.manual_seed(0)
    return ResNet(**arguments).build(_RGB32).eval()


def _parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("preset", "published", "classifier"),
    [
        # torchvision's counts with 1,000 classes, and He et al.'s 0.27 M with 10.
        ("resnet18", 11_689_512, 512 * 1000 + 1000),
        ("resnet50", 25_557_032, 2048 * 1000 + 1000),
        ("resnet20", 269_722, 64 * 10 + 10),
    ],
)
def test_presets_have_the_published_number_of_parameters(preset, published, classifier):
    assert _parameters(_net(preset=preset)) == published - classifier


def test_tiny_is_under_three_hundred_thousand_parameters():
    assert _parameters(_net(preset="tiny")) < 300_000
    assert _net(preset="tiny").feature_dim == 96


def test_arguments_override_the_preset():
    shape = ResNet(preset="resnet18", width=8, blocks=(1, 2))
    assert (shape.block, shape.stem, shape.width, shape.blocks) == (
        "basic",
        "imagenet",
        8,
        (1, 2),
    )
    assert shape.build(_RGB32).feature_dim == 16


@pytest.mark.parametrize(("stem", "stride"), [("small", 4), ("half", 8), ("imagenet", 16)])
def test_stem_decides_how_far_the_image_shrinks(stem, stride):
    net = _net(stem=stem)
    seen = []
    net.get_submodule("layer3").register_forward_hook(
        lambda *parts: seen.append(parts[2].shape)
    )
    net(torch.zeros(1, 3, 32, 32))
    assert seen == [(1, 96, 32 // stride, 32 // stride)]


def _norm(state, prefix, x):
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, weight, bias = (state[f"{prefix}.{n}"].view(1, -1, 1, 1) for n in names)
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def _by_hand(state, x, blocks):
    """The CIFAR network of He et al. from its equations, option A written as loops."""
    x = _norm(state, "bn1", functional.conv2d(x, state["conv1.weight"], padding=1)).relu()
    for stage, count in enumerate(blocks):
        for index in range(count):
            at, stride = f"layer{stage + 1}.{index}", 2 if stage and not index else 1
            y = functional.conv2d(x, state[f"{at}.conv1.weight"], stride=stride, padding=1)
            y = _norm(state, f"{at}.bn1", y).relu()
            y = functional.conv2d(y, state[f"{at}.conv2.weight"], padding=1)
            y = _norm(state, f"{at}.bn2", y)
            shortcut = torch.zeros_like(y)
            first = (y.shape[1] - x.shape[1]) // 2
            for channel in range(x.shape[1]):
                shortcut[:, first + channel] = x[:, channel, ::stride, ::stride]
            x = (y + shortcut).relu()
    return x.mean(dim=(2, 3))


def test_shortcut_a_follows_the_paper(rng):
    net = _net(preset="resnet20", width=4)
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.copy_(torch.from_numpy(rng.normal(0, 0.1, value.shape)))
    x = torch.from_numpy(rng.normal(size=(2, 3, 16, 12))).float()
    with torch.no_grad():
        expected = _by_hand(net.state_dict(), x, (3, 3, 3))
        torch.testing.assert_close(net(x).features, expected, rtol=1e-4, atol=1e-5)


def test_bottleneck_follows_the_paper(rng):
    block = _net(block="bottleneck", blocks=(1, 1), width=4).get_submodule("layer2")
    state = block.state_dict()
    x = torch.from_numpy(rng.normal(size=(2, 16, 8, 6))).float()
    y = x
    for number, stride, padding in ((1, 1, 0), (2, 2, 1), (3, 1, 0)):
        weight = state[f"0.conv{number}.weight"]
        y = functional.conv2d(y, weight, stride=stride, padding=padding)
        y = _norm(state, f"0.bn{number}", y)
        y = y.relu() if number < 3 else y
    projected = functional.conv2d(x, state["0.downsample.0.weight"], stride=2)
    expected = (y + _norm(state, "0.downsample.1", projected)).relu()
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected)


def test_published_cifar_weights_fit_with_a_prefix(test_data):
    path = test_data / "weights" / "resnet20_cifar10.safetensors"
    if not path.exists():
        pytest.skip(f"no {path}")
    weights = {k: v for k, v in load_file(path).items() if not k.startswith("linear.")}
    net = _net(preset="resnet20")
    outcome = net.load_state_dict(weights, strict=False)
    assert not outcome.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in outcome.missing_keys)
    assert torch.equal(
        net.state_dict()["layer3.2.conv2.weight"], weights["layer3.2.conv2.weight"]
    )


@pytest.mark.parametrize("arguments", [{"blocks": ()}, {"blocks": (1, 0)}, {"width": 0}])
def test_impossible_shapes_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected at least one block"):
        ResNet(**arguments)
