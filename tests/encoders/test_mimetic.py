"""Mimetic initialisation: products of weights, by the equations of Trockman and Kolter."""

import numpy as np
import pytest
import torch

from embedkit.encoders.encoder import build_encoder
from embedkit.preprocess import InputSpec

DIM, HEADS = 96, 3
WIDTH = DIM // HEADS


def blocks(**arguments):
    config = {"name": "vit", "dim": DIM, "depth": 2, "heads": HEADS, **arguments}
    spec = InputSpec(height=8, width=8, channels=1)
    return build_encoder({**config, "input": spec.to_dict()}).net.blocks


def paper(block):
    """The paper's matrices, which act on rows of tokens: x W."""
    query, key, value = block.qkv.weight.detach().double().T.split(DIM, dim=1)
    return query, key, value, block.out.weight.detach().double().T


def diagonal_and_noise(product):
    """Mean of the diagonal, and standard deviation of the rest in units of 1 / sqrt(d)."""
    off = ~torch.eye(DIM, dtype=torch.bool)
    return product.diagonal().mean().item(), product[off].std().item() * DIM**0.5


def test_value_times_projection_is_near_minus_the_identity():
    for block in blocks(initial="mimetic"):
        _, _, value, out = paper(block)
        diagonal, noise = diagonal_and_noise(value @ out)
        assert diagonal == pytest.approx(-0.4, abs=0.02)
        assert noise == pytest.approx(0.4, rel=0.05)
        # Equal weight on both factors.
        assert torch.allclose(value.T @ value, out @ out.T, atol=1e-5)


def test_query_times_key_is_the_best_of_its_rank_near_the_identity():
    """A head keeps the largest of the singular values of a I + a Z."""
    expected = []
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(size=(DIM, DIM)) / np.sqrt(DIM)
        expected.append(np.linalg.svd(0.7 * (np.eye(DIM) + noise), compute_uv=False)[:WIDTH])
    for block in blocks(initial="mimetic"):
        query, key, _, _ = paper(block)
        for head in range(HEADS):
            columns = slice(head * WIDTH, (head + 1) * WIDTH)
            product = query[:, columns] @ key[:, columns].T
            values = torch.linalg.svdvals(product).numpy()
            assert np.allclose(values[WIDTH:], 0, atol=1e-5)
            assert values[:WIDTH] == pytest.approx(np.mean(expected, axis=0), rel=0.12)
            # Tokens attend to those like themselves.
            assert product.diagonal().mean() > 0.25


def test_heads_and_blocks_differ():
    first, second = blocks(initial="mimetic")
    query, key, _, _ = paper(first)
    products = [query[:, i : i + WIDTH] @ key[:, i : i + WIDTH].T for i in (0, WIDTH)]
    assert not torch.allclose(products[0], products[1], atol=0.1)
    assert not torch.allclose(first.qkv.weight, second.qkv.weight)


def test_without_it_products_are_small():
    for block in blocks():
        query, key, value, out = paper(block)
        assert abs(diagonal_and_noise(value @ out)[0]) < 0.02
        assert abs((query @ key.T).diagonal().mean()) < 0.02


def test_tokens_attend_to_themselves():
    block = blocks(initial="mimetic")[0]
    tokens = torch.randn(1, 12, DIM, generator=torch.Generator().manual_seed(0))
    qkv = block.qkv(tokens).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    weights = (qkv[0] @ qkv[1].transpose(-1, -2) / WIDTH**0.5).softmax(dim=-1)
    assert (weights.argmax(dim=-1) == torch.arange(12)).float().mean() > 0.9
