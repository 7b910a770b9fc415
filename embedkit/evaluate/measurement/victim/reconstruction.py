"""Auto-encoders trained on a few images, in whose place a model is attacked that nobody asked.

After Li, Guo and Chen (2020), Practical No-box Adversarial Attacks against DNNs, section 3.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = [
    "AutoEncoder",
    "Lesson",
    "Mechanism",
    "adversarial_loss",
    "lesson_of",
    "reconstruction_loss",
    "squared_distances",
    "train_on",
]

Mechanism = Literal["prototypes", "rotation", "jigsaw"]
"""What the auto-encoder is taught: prototypes of two classes, or the image from chaos."""

_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Lesson:
    """What the decoders should make of each image.

    Attributes:
        targets: Images among which each decoder's own are, (m, k, c, h, w): the prototypes of
            both classes (m = 2), or for one decoder every image itself (m = n).
        own: Which of the m is right for each image, (n,).
    """

    targets: Tensor
    own: Tensor


class AutoEncoder(nn.Module):
    """An encoder to a quarter of the size, and several decoders back from it.

    Args:
        channels: Of the images.
        decoders: k, with no weight in common.
        width: Channels of the first layer; deeper ones have twice as many.
        generator: Draws the weights.
    """

    def __init__(
        self, channels: int, decoders: int, width: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.GroupNorm(1, width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GroupNorm(1, 2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(2 * width, width, 3, padding=1),
                nn.ReLU(),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(width, width // 2 or 1, 3, padding=1),
                nn.ReLU(),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(width // 2 or 1, channels, 3, padding=1),
                nn.Sigmoid(),
            )
            for _ in range(decoders)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(module.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """What every decoder makes of images (n, c, h, w) in [0, 1]: (n, k, c, h, w)."""
        height, width = pixels.shape[2:]
        code = self.encoder(pixels)
        # Two halvings round up, so what comes back may be larger than the image.
        made = torch.stack([decoder(code) for decoder in self.decoders], dim=1)
        return made[..., :height, :width]


def squared_distances(made: Tensor, targets: Tensor) -> Tensor:
    """Mean squared distance of each reconstruction to each target, (n, k, m).

    Args:
        made: (n, k, c, h, w).
        targets: (m, k, c, h, w).
    """
    left, right = made.flatten(2), targets.flatten(2)
    squares = left.square().sum(2)[:, :, None] + right.square().sum(2).T[None]
    products = torch.einsum("nkp,mkp->nkm", left, right)
    return (squares - 2 * products).clamp_min(0) / left.shape[2]


def reconstruction_loss(made: Tensor, lesson: Lesson) -> Tensor:
    """The paper's equations 1 and 2, a scalar: squared distance to the own targets.

    Summed over decoders; the mean over images and, other than there, over values.
    """
    difference = made - lesson.targets[lesson.own]
    return difference.square().mean(dim=(0, 2, 3, 4)).sum()


def adversarial_loss(made: Tensor, lesson: Lesson, rows: Tensor, sharpness: float) -> Tensor:
    """The paper's equation 3, (n,): minus the log probability of the own target.

    p is exp(-sharpness d) over its sum among the targets, d the squared distances; the mean
    over decoders.

    Args:
        made: Reconstructions of some images, (n, k, c, h, w).
        lesson: Of all images.
        rows: Which of these the reconstructions are of, (n,).
        sharpness: Called lambda there.
    """
    logs = (-sharpness * squared_distances(made, lesson.targets)).log_softmax(dim=2)
    own = lesson.own[rows][:, None, None].expand(-1, logs.shape[1], 1)
    return -logs.gather(2, own)[:, :, 0].mean(dim=1)


def lesson_of(
    pixels: Tensor, classes: Tensor, decoders: int, generator: torch.Generator
) -> Lesson:
    """Return what to reconstruct: a prototype of the own class per decoder, or oneself.

    Args:
        pixels: (n, c, h, w) in [0, 1].
        classes: 0 or 1, (n,), both there: each decoder has a random image of either as its
            prototypes. All alike: every image is its own target.
        decoders: k.
        generator: Draws the prototypes.
    """
    if bool((classes == classes[0]).all()):
        return Lesson(pixels[:, None], torch.arange(len(pixels)))
    chosen = []
    for one in (0, 1):
        members = torch.nonzero(classes == one)[:, 0]
        drawn = torch.randint(len(members), (decoders,), generator=generator)
        chosen.append(pixels[members[drawn]])
    return Lesson(torch.stack(chosen), classes)


def train_on(
    model: AutoEncoder,
    pixels: Tensor,
    lesson: Lesson,
    mechanism: Mechanism,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Train an auto-encoder on all images at each step, by Adam.

    Args:
        model: Changed in place.
        pixels: (n, c, h, w) in [0, 1].
        lesson: What to make of them.
        mechanism: ``rotation`` and ``jigsaw`` show each image turned by quarters, or with its
            quadrants in another order; ``prototypes`` as it is.
        steps: Of the optimiser.
        generator: Draws turns and orders.
    """
    optimiser = torch.optim.Adam(model.parameters(), _LEARNING_RATE)
    for _ in range(steps):
        shown = _SHOWN[mechanism](pixels, generator)
        loss = reconstruction_loss(model(shown), lesson)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        optimiser.step()
    model.requires_grad_(requires_grad=False)


def _plain(pixels: Tensor, _: torch.Generator) -> Tensor:
    return pixels


def _turned(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by a random number of quarters; of halves where it is not square."""
    quarter = 1 if pixels.shape[2] == pixels.shape[3] else 2
    drawn = torch.randint(4 // quarter, (len(pixels),), generator=generator) * quarter
    turned = [torch.rot90(p, int(t), (1, 2)) for p, t in zip(pixels, drawn, strict=True)]
    return torch.stack(turned)


def _shuffled(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image with its four quadrants in a random order; an odd last row or column stays."""
    made = pixels.clone()
    height, width = pixels.shape[2] // 2, pixels.shape[3] // 2
    corners = [(0, 0), (0, width), (height, 0), (height, width)]
    for one, before in zip(made, pixels, strict=True):
        order = torch.randperm(4, generator=generator).tolist()
        for (top, left), source in zip(corners, order, strict=True):
            y, x = corners[source]
            tile = before[:, y : y + height, x : x + width]
            one[:, top : top + height, left : left + width] = tile
    return made


_SHOWN = {"prototypes": _plain, "rotation": _turned, "jigsaw": _shuffled}
