"""The learner: in which order of memory the network runs, and what it starts from."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from embedkit.encoders.encoder import build_encoder
from embedkit.errors import NotFound
from embedkit.preprocess import InputSpec
from embedkit.train.images.load import load_images
from embedkit.train.learner import Learner, Part, build_state
from embedkit.train.loop import train
from embedkit.train.objective import build_objective
from tests.train.runs import train_until


@pytest.mark.parametrize("channels", [1, 3])
def test_every_convolution_gets_its_channels_side_by_side(channels):
    spec = InputSpec(height=8, width=8, channels=channels)
    config = {"name": "resnet", "blocks": [1], "width": 4, "input": spec.to_dict()}
    learner = Learner(build_encoder(config), nn.Identity(), None)
    learner.to(memory_format=torch.channels_last)
    pixels = torch.rand(2, 3, channels, 8, 8)
    plain = learner.encode(Part(pixels))
    strides = []
    for module in learner.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, args: strides.append(args[0].stride(1)))
    learner.channels_last = True
    laid_out = learner.encode(Part(pixels))
    assert strides == [1] * 3
    torch.testing.assert_close(laid_out.features, plain.features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "is_laid_out"), [(4, False), (8, True)])
def test_networks_with_fewer_channels_than_a_block_keep_the_usual_order(
    small, width, is_laid_out
):
    """Strided 1x1 convolutions of 4 channels corrupted the heap on processors with AVX2."""
    recipe = small(encoder={"name": "resnet", "blocks": [1, 1], "width": width})
    objective = build_objective("simclr", {})
    images = load_images(recipe, objective, torch.device("cpu"))
    learner = build_state(recipe, objective, images, torch.device("cpu")).learner
    assert learner.channels_last is is_laid_out
    stems = [
        m.weight for m in learner.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)
    ]
    assert all((w.stride(1) == 1) is is_laid_out for w in stems if w.shape[2] == 3)


def test_a_finished_encoder_is_the_same_function_on_other_data(small, tmp_path):
    """Its normalisation comes with it, unless the recipe sets another."""
    cpu, objective = torch.device("cpu"), build_objective("simclr", {})
    train(small(schedule={"max_steps": 2}), tmp_path / "first")
    config = json.loads((tmp_path / "first" / "encoder.json").read_text())
    finished = build_encoder(config).eval()
    finished.load_state_dict(load_file(tmp_path / "first" / "encoder.safetensors"))
    pixels = torch.randint(0, 40, (30, 8, 8, 1), generator=torch.Generator().manual_seed(1))
    np.savez(tmp_path / "dark.npz", images=pixels.to(torch.uint8).numpy())
    dark = {"source": str(tmp_path / "dark.npz")}

    def start(**encoder):
        recipe = small(data=dark, encoder=encoder, initial=str(tmp_path / "first"))
        images = load_images(recipe, objective, cpu)
        assert images.mean[0] < 0.1 < finished.config["mean"][0]
        return build_state(recipe, objective, images, cpu).learner.encoder.eval()

    images = pixels.to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(start()(images).features, finished(images).features)
    assert start().config == finished.config
    assert start(mean=0.5).config == {**finished.config, "mean": [0.5]}


def test_a_run_goes_on_without_the_encoder_it_began_with(small, tmp_path):
    train(small(schedule={"max_steps": 2}), tmp_path / "first")
    images = np.random.default_rng(0).integers(0, 40, (70, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "dark.npz", images=images)
    dark = {"source": str(tmp_path / "dark.npz")}
    recipe = small(data=dark, initial=str(tmp_path / "first"), run={"ema": 0.9})
    train(recipe, tmp_path / "whole")
    train_until(recipe, tmp_path / "cut", 4)
    (tmp_path / "first").rename(tmp_path / "moved")
    train(recipe, tmp_path / "cut", resume=True)
    for name in ("encoder.safetensors", "encoder.json"):
        whole, cut = ((tmp_path / run / name).read_bytes() for run in ("whole", "cut"))
        assert whole == cut
    with pytest.raises(NotFound, match="expected the weights of an encoder"):
        train(recipe, tmp_path / "another")
