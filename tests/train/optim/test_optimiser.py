"""Optimisers against their equations, the schedule and the averages."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from embedkit.train.optim import average, build_optimiser, learning_rate, set_learning_rate
from embedkit.train.settings import OptimiserSection


@pytest.fixture
def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_norms_and_biases_do_not_decay(module, name):
    settings = OptimiserSection(name=name, lr=0.1, weight_decay=0.5)
    before = {k: p.detach().clone() for k, p in module.named_parameters()}
    optimiser = build_optimiser(settings, module)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for key, parameter in module.named_parameters():
        assert torch.equal(parameter, before[key]) == (parameter.ndim == 1), key


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_every_trainable_parameter_is_in_one_group(module, name):
    module[0].weight.requires_grad_(False)
    optimiser = build_optimiser(OptimiserSection(name=name), module)
    held = [p for group in optimiser.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in module.parameters() if p.requires_grad}
    assert len(held) == len({id(p) for p in held})


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_they_minimise_a_parabola(name):
    weight = nn.Parameter(torch.tensor([[3.0, -2.0]]))
    holder = nn.Module()
    holder.weight = weight
    lr = {"adamw": 0.1, "sgd": 0.05, "lars": 20.0}[name]
    optimiser = build_optimiser(OptimiserSection(name=name, lr=lr, weight_decay=0.0), holder)
    first = weight.square().sum().item()
    for _ in range(60):
        optimiser.zero_grad()
        weight.square().sum().backward()
        optimiser.step()
    assert weight.square().sum().item() < 0.05 * first


def test_lars_follows_its_algorithm():
    lr, momentum, decay, trust = 0.3, 0.9, 0.01, 0.02
    weight = [[1.0, -2.0], [0.5, 3.0]]
    holder = nn.Module()
    holder.weight = nn.Parameter(torch.tensor(weight))
    settings = OptimiserSection(
        name="lars", lr=lr, momentum=momentum, weight_decay=decay, trust=trust
    )
    optimiser = build_optimiser(settings, holder)
    velocity = [[0.0, 0.0], [0.0, 0.0]]
    for gradient in ([[0.1, 0.2], [-0.3, 0.4]], [[1.0, 0.0], [0.0, -1.0]]):
        holder.weight.grad = torch.tensor(gradient)
        optimiser.step()
        update = [
            [g + decay * w for g, w in zip(*rows, strict=True)]
            for rows in zip(gradient, weight, strict=True)
        ]
        ratio = trust * _norm(weight) / _norm(update)
        for i in range(2):
            for j in range(2):
                velocity[i][j] = momentum * velocity[i][j] + lr * ratio * update[i][j]
                weight[i][j] -= velocity[i][j]
    assert holder.weight.tolist() == [pytest.approx(row, rel=1e-5) for row in weight]


def test_lars_moves_weights_that_are_zero():
    holder = nn.Module()
    holder.weight = nn.Parameter(torch.zeros(2, 2))
    optimiser = build_optimiser(OptimiserSection(name="lars", lr=1.0), holder)
    holder.weight.grad = torch.ones(2, 2)
    optimiser.step()
    assert torch.equal(holder.weight, -torch.ones(2, 2))


def test_schedule_warms_up_and_falls_along_a_cosine():
    rates = [learning_rate(s, total=100, warmup=10, peak=2.0, final=0.1) for s in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (s + 1) for s in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2))
    assert rates[100] == pytest.approx(0.2)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_schedule_that_only_warms_up_stays_finite():
    assert learning_rate(3, total=3, warmup=3, peak=1.0) == pytest.approx(1.0)


def test_learning_rate_reaches_every_group(module):
    optimiser = build_optimiser(OptimiserSection(), module)
    set_learning_rate(optimiser, 0.125)
    assert [group["lr"] for group in optimiser.param_groups] == [0.125, 0.125]


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_average_moves_parameters_and_copies_buffers(module, momentum):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        linear, norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
    target = nn.Sequential(linear, norm)
    module(torch.randn(8, 3, generator=torch.Generator().manual_seed(2)))
    before = linear.weight.detach().clone()
    average(target, module, momentum)
    expected = momentum * before + (1 - momentum) * module[0].weight
    assert torch.allclose(linear.weight, expected, atol=1e-7)
    assert torch.equal(norm.get_buffer("running_mean"), module[1].running_mean)
    assert norm.num_batches_tracked == 1


def _norm(matrix):
    return math.sqrt(sum(value * value for row in matrix for value in row))
