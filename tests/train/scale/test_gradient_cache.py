"""Gradient caching: the gradient of the whole batch, in the memory of a part."""

import pytest
import torch
from torch import nn

from embedkit.encoders.encoder import build_encoder
from embedkit.encoders.heads import projection_head
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec
from embedkit.train.learner import Learner, Part
from embedkit.train.loop import train
from embedkit.train.objective import build_objective
from embedkit.train.scale.gradient_cache import GradientCache, check_parts
from tests.train.scale.one_step import one_step

SPEC = InputSpec(height=8, width=8, channels=1).to_dict()
VIT = {"name": "vit", "patch": 4, "dim": 16, "depth": 2, "heads": 2, "input": SPEC}


def vit_learner():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Learner(build_encoder(VIT), projection_head(16, 12, 6, norm="layer"), None)


def in_batch_loss(projections):
    """NT-Xent over all images, written out."""
    z = nn.functional.normalize(projections, dim=-1).flatten(0, 1)
    b = projections.shape[1]
    similarity = (z @ z.T / 0.5).masked_fill(torch.eye(2 * b, dtype=torch.bool), -1e9)
    return nn.functional.cross_entropy(similarity, torch.arange(2 * b).roll(b))


def gradients(learner):
    return {k: p.grad.clone() for k, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("images", [1, 3, 5, 12, 100])
def test_gradients_are_those_of_the_whole_batch(images):
    pixels = torch.rand(2, 12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    learner = vit_learner()
    whole = in_batch_loss(learner(pixels).projections)
    whole.backward()
    expected = gradients(learner)
    learner.zero_grad(set_to_none=True)
    learner.way = cache = GradientCache(images, list(learner.buffers()))
    loss = in_batch_loss(learner(pixels).projections)
    loss.backward()
    assert not gradients(learner)
    cache.backward()
    torch.testing.assert_close(loss, whole)
    found = gradients(learner)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-6)


def saved_bytes(batch, images):
    """Largest number of bytes that the graph holds at any moment of a step."""
    held = {"now": 0, "most": 0}

    class Saved:
        def __init__(self, tensor):
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            held["now"] += self.size
            held["most"] = max(held["most"], held["now"])

        def __del__(self):
            held["now"] -= self.size

    learner, pixels = vit_learner(), torch.rand(2, batch, 1, 8, 8)
    cache = None
    if images:
        learner.way = cache = GradientCache(images, list(learner.buffers()))
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        # The loss itself grows with the batch's square, whoever computes it: left out.
        learner(pixels).projections.square().sum().backward()
        if cache is not None:
            cache.backward()
    return held["most"]


def test_memory_hardly_grows_with_the_batch():
    assert saved_bytes(64, 0) > 3.5 * saved_bytes(16, 0)
    assert saved_bytes(64, 4) < 1.2 * saved_bytes(16, 4)
    assert saved_bytes(64, 4) < 0.15 * saved_bytes(64, 0)


def test_without_gradients_nothing_is_remembered():
    learner = vit_learner()
    pixels = torch.rand(2, 5, 1, 8, 8)
    expected = learner(pixels)
    learner.way = cache = GradientCache(2, [])
    with torch.no_grad():
        found = learner(pixels)
    torch.testing.assert_close(found.projections, expected.projections)
    cache.backward()
    assert not gradients(learner)


def test_dropout_is_the_same_in_both_passes():
    learner = vit_learner()
    learner.projector = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 6))
    learner.way = cache = GradientCache(3, [])
    torch.manual_seed(5)
    pixels = torch.rand(2, 9, 1, 8, 8)
    projections = learner(pixels).projections
    projections.sum().backward()
    state = torch.get_rng_state()
    cache.backward()
    assert torch.equal(torch.get_rng_state(), state)
    # d sum / d W is the sum of the inputs that dropout let through in the first pass.
    torch.manual_seed(5)
    torch.rand(2, 9, 1, 8, 8)
    total = torch.zeros(16)
    for part in pixels.split(3, dim=1):
        features, _ = learner.encoder.encode(part.flatten(0, 1))
        total += learner.projector[0](features).sum(dim=0).detach()
    torch.testing.assert_close(learner.projector[1].weight.grad[0], total)


def test_running_statistics_move_once():
    """Parts of 4 of the batch of 12 images: three updates, not six."""
    found = one_step("simclr", run={"gradient_cache": 4})
    plain = one_step("simclr")
    name = "buffer encoder.net.bn1.num_batches_tracked"
    assert (found[name], plain[name]) == (3, 1)


@pytest.mark.parametrize(
    ("batch", "count", "sizes"),
    [(16, 5, [4, 4, 4, 4]), (5, 2, [1, 2, 2]), (17, 16, [8, 9]), (12, 100, [12])],
)
def test_parts_are_even(batch, count, sizes):
    parts = Part(torch.arange(batch).reshape(1, batch, 1, 1, 1)).split(count)
    assert [part.pixels.shape[1] for part in parts] == sizes
    assert torch.cat([part.pixels.flatten() for part in parts]).tolist() == list(range(batch))


def test_one_view_of_a_batch_with_a_remainder_trains(small, tmp_path):
    """16 images, 5 at a time: a batch norm over a part of one would have no variance."""
    recipe = small(
        objective={"name": "instance_discrimination"},
        run={"gradient_cache": 5},
        schedule={"max_steps": 2},
    )
    assert train(recipe, tmp_path / "run").steps == 2


@pytest.mark.parametrize(("batch", "count"), [(16, 1), (5, 2)])
def test_a_part_of_one_image_is_refused_beside_batch_norm(small, tmp_path, batch, count):
    sections = {"run": {"gradient_cache": count}, "schedule": {"batch_size": batch}}
    with pytest.raises(InvalidInput, match=r"2 images.*raise run\.gradient_cache"):
        train(small(**sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    free, recipe = (
        build_objective("simclr", {}),
        small(projection={"norm": "layer"}, **sections),
    )
    check_parts(recipe, free, 1)
    check_parts(small(**sections | {"schedule": {"batch_size": 16}}), free, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dropout_on_a_gpu_is_the_same_in_both_passes():
    learner = vit_learner()
    learner.projector = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 6))
    learner.cuda()
    outputs = []
    learner.projector.register_forward_hook(lambda *found: outputs.append(found[2].detach()))
    learner.way = cache = GradientCache(3, [])
    learner(torch.rand(2, 9, 1, 8, 8, device="cuda")).projections.sum().backward()
    state = torch.cuda.get_rng_state()
    cache.backward()
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert len(outputs) == 6
    assert all(map(torch.equal, outputs[:3], outputs[3:]))
