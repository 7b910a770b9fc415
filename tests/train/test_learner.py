"""The learner: in which order of memory the network runs."""

import pytest
import torch
from torch import nn

from embedkit.encoders.encoder import build_encoder
from embedkit.preprocess import InputSpec
from embedkit.train.learner import Learner, Part


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
