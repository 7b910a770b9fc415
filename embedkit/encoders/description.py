"""How large an encoder is and what one image costs."""

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from embedkit.encoders.encoder import Encoder

__all__ = ["Description", "describe"]


@dataclass(frozen=True)
class Description:
    """Size and cost of an encoder.

    Attributes:
        parameters: Trainable numbers.
        flops: Floating-point operations for one image in convolutions, matrix products and
            attention; a multiply-add counts as two.
    """

    parameters: int
    flops: int

    def __str__(self) -> str:
        return f"{_short(self.parameters)} parameters, {_short(self.flops)} FLOPs per image"


def describe(encoder: Encoder) -> Description:
    """Count parameters and the operations of one forward pass of one image.

    The encoder's weights, batch statistics and mode are left as they were.
    """
    spec = encoder.input
    device = encoder.mean.device
    image = torch.zeros(
        1, spec.height, spec.width, spec.channels, dtype=torch.uint8, device=device
    )
    training = encoder.training
    encoder.eval()
    # The fused attention of the CPU is unknown to the counter; the plain one is two products.
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        encoder(image)
    encoder.train(training)
    parameters = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    return Description(parameters, counter.get_total_flops())


def _short(number: int) -> str:
    """Three significant digits with k, M or G."""
    for power, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= power:
            return f"{number / power:.3g} {unit}"
    return str(number)
