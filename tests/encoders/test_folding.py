"""Folded networks against themselves before, with statistics as after training."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from embedkit.encoders.folding import fold_norms
from embedkit.encoders.resnet import ResNet
from embedkit.preprocess import InputSpec


def trained(**arguments):
    """A network in evaluation mode whose norms have statistics and weights of their own."""
    torch.manual_seed(0)
    net = ResNet(width=8, blocks=(1, 2), **arguments).build(InputSpec(16, 16, 3)).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias)
    return net


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_values_and_gradients_stay_and_no_norm_is_left(block, shortcut, stem):
    net = trained(block=block, shortcut=shortcut, stem=stem)
    folded = deepcopy(net)
    fold_norms(folded)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    pixels = torch.rand(4, 3, 16, 16)
    found = []
    for one in (net, folded):
        leaf = pixels.clone().requires_grad_(True)
        features = one(leaf).features
        (gradient,) = torch.autograd.grad(features.square().sum(), leaf)
        found.append((features, gradient))
    (before, slope), (after, slope_after) = found
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slope_after, slope, rtol=1e-3, atol=1e-3)


def test_a_network_in_training_is_refused():
    net = trained(stem="small").train()
    with pytest.raises(ValueError, match="expected a network in evaluation mode"):
        fold_norms(net)
