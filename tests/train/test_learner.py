"""The learner: in which order of memory the network runs."""

import pytest
import torch
from torch import nn

from embedkit.encoders.encoder import build_encoder
from embedkit.preprocess import InputSpec
from embedkit.train.images.load import load_images
from embedkit.train.learner import Learner, Part, build_state
from embedkit.train.objective import build_objective


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
