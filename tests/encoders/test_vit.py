import math

import numpy as np
import pytest
import torch

from embedkit.encoders.encoder import Hidden
from embedkit.encoders.vit import ViT
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec


def _net(height=12, width=8, channels=3, **arguments):
    torch.manual_seed(0)
    shape = ViT(**{"preset": "nano", "depth": 2, **arguments})
    return shape.build(InputSpec(height=height, width=width, channels=channels)).eval()


@pytest.mark.parametrize(
    ("height", "width", "patch", "tokens"),
    [(12, 8, 4, 6), (28, 28, 7, 16), (15, 9, 4, 12), (8, 8, 1, 64), (3, 3, 8, 1)],
)
@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_tokens_are_one_per_patch(height, width, patch, tokens, registers, pooling):
    net = _net(height, width, patch=patch, registers=registers, pooling=pooling)
    encoded = net(torch.zeros(2, 3, height, width))
    assert encoded.tokens.shape == (2, tokens, 96)
    assert encoded.features.shape == (2, 96)


def test_published_number_of_parameters():
    # ViT-S/16 of DeiT at 224 px has 22,050,664 with a learned position for its class token too
    # (384) and a classifier (385 * 1000).
    spec = InputSpec(height=224, width=224, channels=3)
    net = ViT(preset="small", patch=16, positions="learned").build(spec)
    assert sum(p.numel() for p in net.parameters()) == 22_050_664 - 384 - 385_000


def test_mean_pooling_averages_the_patches_alone(rng):
    net = _net(registers=2, pooling="mean")
    pixels = torch.from_numpy(rng.normal(size=(2, 3, 12, 8))).float()
    with torch.no_grad():
        encoded = net(pixels)
    torch.testing.assert_close(encoded.features, encoded.tokens.mean(dim=1))


def _by_hand(net, pixels, patch, heads):
    """The network for one image from its equations, in float64 numpy."""
    state = {k: v.double().numpy() for k, v in net.state_dict().items()}
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    tokens = []
    for i in range(rows):
        for j in range(columns):
            cut = pixels[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            tokens.append(np.einsum("dcij,cij->d", state["embed.weight"], cut))
    x = np.array(tokens) + state["embed.bias"] + state["positions"][0]
    x = np.concatenate([state["prefix"][0], x])
    for index in range(len(net.blocks)):
        at = f"blocks.{index}."
        block = {k.removeprefix(at): v for k, v in state.items() if k.startswith(at)}
        y = _layer_norm(x, block["norm1.weight"], block["norm1.bias"])
        x = x + _attention(y, block, heads)
        y = _layer_norm(x, block["norm2.weight"], block["norm2.bias"])
        y = y @ block["mlp.0.weight"].T + block["mlp.0.bias"]
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        x = x + y @ block["mlp.2.weight"].T + block["mlp.2.bias"]
    return _layer_norm(x, state["norm.weight"], state["norm.bias"])


def _layer_norm(x, weight, bias):
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6) * weight + bias


def _attention(x, block, heads):
    dim = x.shape[1]
    query, key, value = np.split(x @ block["qkv.weight"].T + block["qkv.bias"], 3, axis=1)
    mixed = []
    for head in range(heads):
        part = slice(head * dim // heads, (head + 1) * dim // heads)
        scores = query[:, part] @ key[:, part].T / math.sqrt(dim // heads)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, part])
    return np.concatenate(mixed, axis=1) @ block["out.weight"].T + block["out.bias"]


def test_network_follows_the_equations(rng):
    net = _net(positions="learned", registers=1)
    for name, value in net.state_dict().items():
        if value.ndim == 1:
            value.add_(torch.from_numpy(rng.normal(0, 0.1, value.shape)))
        elif "weight" in name:
            value.mul_(5)  # far from the linear regime of the initialisation
    pixels = rng.normal(size=(3, 12, 8))
    with torch.no_grad():
        encoded = net(torch.from_numpy(pixels).float()[None])
    expected = _by_hand(net, pixels, patch=4, heads=3)
    np.testing.assert_allclose(encoded.features[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(encoded.tokens[0], expected[2:], atol=1e-4)


def test_images_that_are_no_multiple_of_the_patch_are_padded_with_the_mean(rng):
    narrow, wide = _net(10, 7), _net(12, 8)
    pixels = torch.from_numpy(rng.normal(size=(1, 3, 10, 7))).float()
    padded = torch.zeros(1, 3, 12, 8)
    padded[:, :, :10, :7] = pixels
    with torch.no_grad():
        torch.testing.assert_close(narrow(pixels), wide(padded))


def test_sincos_positions_follow_the_formula():
    positions = _net(12, 8, dim=12).positions[0]
    for i in range(3):
        for j in range(2):
            expected = [
                wave(place / 10000 ** (index / 3))
                for place in (i, j)
                for wave in (math.sin, math.cos)
                for index in range(3)
            ]
            np.testing.assert_allclose(positions[i * 2 + j], expected, atol=1e-6)


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_where_a_patch_lies_matters(positions, rng):
    net = _net(positions=positions)
    pixels = torch.from_numpy(rng.normal(size=(1, 3, 12, 8))).float()
    with torch.no_grad():
        moved = net(pixels.roll(4, dims=2)).features
        assert not torch.allclose(net(pixels).features, moved, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 10, "heads": 3}, "expected dim as a multiple of heads, got 10 and 3"),
        ({"dim": 6, "heads": 3}, "use positions = 'learned'"),
        ({"patch": 0}, "expected sizes of at least 1"),
        ({"registers": -1}, "expected sizes of at least 1"),
    ],
)
def test_impossible_shapes_are_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        ViT(**arguments)


def test_dropped_patches_are_as_if_they_were_never_there(rng):
    net = _net()
    pixels = torch.from_numpy(rng.normal(size=(2, 3, 12, 8))).float()
    mask = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1]]).bool()
    with torch.no_grad():
        encoded = net(pixels, Hidden(mask))
        changed = net(_scrambled(pixels, mask), Hidden(mask))
        embedded = net.embed(pixels).flatten(2).transpose(1, 2) + net.positions
        first = torch.cat([net.prefix, embedded[:1][:, [1, 2, 4, 5]]], dim=1)
        by_hand = net.norm(net.blocks(first))
    assert encoded.tokens.shape == (2, 4, 96)
    torch.testing.assert_close(encoded.features, changed.features)
    torch.testing.assert_close(encoded.tokens[:1], by_hand[:, 1:])


def test_a_token_stands_in_for_hidden_patches(rng):
    net = _net()
    pixels = torch.from_numpy(rng.normal(size=(2, 3, 12, 8))).float()
    mask = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]]).bool()
    token = torch.from_numpy(rng.normal(size=96)).float()
    with torch.no_grad():
        encoded = net(pixels, Hidden(mask, token))
        changed = net(_scrambled(pixels, mask), Hidden(mask, token))
        other = net(pixels, Hidden(mask, -token))
    assert encoded.tokens.shape == (2, 6, 96)
    torch.testing.assert_close(encoded.tokens, changed.tokens)
    assert not torch.allclose(encoded.tokens, other.tokens, atol=1e-3)


def test_the_last_block_gives_the_tokens(rng):
    net = _net(depth=3, registers=2)
    pixels = torch.from_numpy(rng.normal(size=(2, 3, 12, 8))).float()
    with torch.no_grad():
        blocks = net.encode_blocks(pixels)
        torch.testing.assert_close(net.norm(blocks[:, -1]), net(pixels).tokens)
    assert blocks.shape == (2, 3, 6, 96)


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_a_smaller_image_gets_positions_of_its_own_grid(positions):
    net = _net(12, 8, positions=positions)
    with torch.no_grad():
        encoded = net(torch.zeros(2, 3, 6, 5))
    assert encoded.tokens.shape == (2, 4, 96)
    # Linear positions stay linear when they are interpolated, but for the edges.
    table = torch.arange(6.0).reshape(1, 6, 1)
    net.positions = torch.nn.Parameter(table) if positions == "learned" else table
    assert net._positions((3, 2)) is net.positions
    middle = net._positions((6, 4))[0].reshape(6, 4)
    assert (middle.diff(dim=0) > 0).all()
    assert (middle.diff(dim=1) > 0).all()


def _scrambled(pixels, mask):
    """The same images with other pixels in the hidden patches of 4 x 4."""
    large = mask.reshape(2, 1, 3, 2).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    return torch.where(large, pixels.flip(0) + 3, pixels)
