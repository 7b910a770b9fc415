"""Corruption: what weather, cameras and software do to images, at several severities."""

import zlib
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol

import numpy as np

from embedkit.errors import InvalidInput
from embedkit.evaluate.measurement.pixels.warp import Floats
from embedkit.registry import Registry
from embedkit.types import Images

__all__ = [
    "SETS",
    "SMALL_PX",
    "Constants",
    "Corruption",
    "Rngs",
    "Strength",
    "constants_for",
    "corrupt",
    "corruptions",
    "expand",
]

Rngs = Sequence[np.random.Generator]
"""One generator per image."""

Strength = tuple[float, ...]
Constants = Literal["cifar", "imagenet"]

SMALL_PX = 64
"""Images up to this side get the constants of CIFAR-10-C, larger ones those of ImageNet-C."""


class Corruption(Protocol):
    """One way to spoil an image.

    Attributes:
        cifar: Strength of each severity for small images, as in CIFAR-10-C.
        imagenet: Strength of each severity for large images, as in ImageNet-C.
    """

    cifar: ClassVar[tuple[Strength, ...]]
    imagenet: ClassVar[tuple[Strength, ...]]

    def __call__(self, pixels: Floats, strength: Strength, rngs: Rngs) -> Floats:
        """Corrupt a batch.

        Args:
            pixels: (n, h, w, c), 0 to 1; not changed.
            strength: One entry of ``cifar`` or ``imagenet``.
            rngs: A generator per image; no other randomness may be used.

        Returns:
            (n, h, w, c); what lies beyond 0 to 1 is clipped by the caller.
        """
        ...


corruptions: Registry[type[Corruption]] = Registry(
    "embedkit.evaluate.corruptions", "corruption"
)
"""Every corruption by name."""

_COMMON = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
_MNIST_C = {
    "shot_noise": 5,
    "impulse_noise": 4,
    "glass_blur": 1,
    "motion_blur": 1,
    "shear": 2,
    "scale": 3,
    "rotate": 2,
    "brightness": 5,
    "translate": 3,
    "stripe": 1,
    "fog": 5,
    "spatter": 4,
    "dotted_line": 1,
    "zigzag": 1,
    "canny_edges": 1,
}
SETS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "common": {name: () for name in _COMMON},
    "validation": {
        name: () for name in ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    },
    "mnist_c": {name: (severity,) for name, severity in _MNIST_C.items()},
    "system": {"jpeg_recode": (), "resize_filter": ()},
}
"""Sets of corruptions and their severities; an empty tuple means all that are asked for.

``common`` and ``validation`` are those of Hendrycks and Dietterich (2019), ``mnist_c`` those of
Mu and Gilmer (2019) at the severities of the released set and with the constants for large
images, ``system`` what another decoder or resizer does (ImageNet-S, Wang et al. 2021).
"""


def expand(
    wanted: Sequence[str], severities: Sequence[int]
) -> tuple[dict[str, tuple[int, ...]], Constants | None]:
    """Names and sets of corruptions as names with severities, in their order.

    Args:
        wanted: Names of corruptions or of ``SETS``.
        severities: Of those without severities of their own; one that a corruption does not
            have is left out.

    Returns:
        The severities by name, and the constants that the set prescribes, or None.

    Raises:
        InvalidInput: If a name is unknown, nothing is left, or ``mnist_c`` is not alone.
    """
    if "mnist_c" in wanted:
        if len(wanted) > 1:
            raise InvalidInput(
                "expected mnist_c alone, because it has severities and constants of its own, "
                f"got {', '.join(wanted)}"
            )
        return dict(SETS["mnist_c"]), "imagenet"
    found: dict[str, tuple[int, ...]] = {}
    for entry in wanted:
        for name in SETS.get(entry, {entry: ()}):
            known = len(_named(name).cifar)
            found[name] = tuple(s for s in sorted(set(severities)) if 1 <= s <= known)
    if not found or not all(found.values()):
        raise InvalidInput(
            f"expected at least one corruption and severities from 1 to 5, got {list(wanted)} "
            f"and {list(severities)}"
        )
    return found, None


def _named(name: str) -> type[Corruption]:
    """The corruption; the error for an unknown one lists the sets too."""
    try:
        return corruptions.get(name)
    except InvalidInput as error:
        raise InvalidInput(f"{error}; sets of them: {', '.join(SETS)}") from error


def constants_for(height: int, width: int) -> Constants:
    """The table of constants for images of this size."""
    return "cifar" if max(height, width) <= SMALL_PX else "imagenet"


def corrupt(
    images: Images,
    name: str,
    severity: int,
    *,
    ids: Sequence[str],
    seed: int = 0,
    constants: Constants | None = None,
) -> Images:
    """Corrupt images at one severity.

    What happens to an image depends on its pixels, its id, the name, the severity and the seed
    alone: not on the other images or their order. Values are cut to whole numbers and not
    rounded, as in the published sets.

    Args:
        images: (n, h, w, 1 or 3) uint8.
        name: Registry name.
        severity: 1 (weakest) to 5, or to as many as the corruption has.
        ids: One per image.
        seed: Root of the draws.
        constants: Table of constants; by default that of the size of the images.

    Returns:
        New images of the same shape.

    Raises:
        InvalidInput: If the name, the severity, the shape or the number of ids is wrong.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or len(ids) != len(images):
        raise InvalidInput(
            f"expected uint8 images (n, h, w, c) and an id for each, got {images.dtype} "
            f"{images.shape} and {len(ids)} ids"
        )
    kind = corruptions.get(name)
    chosen = constants or constants_for(*images.shape[1:3])
    table = kind.cifar if chosen == "cifar" else kind.imagenet
    if not 1 <= severity <= len(table):
        raise InvalidInput(
            f"expected a severity of {name} from 1 to {len(table)}, got {severity}"
        )
    if not len(images):
        return images.copy()
    tag = zlib.crc32(name.encode())
    rngs = [np.random.default_rng([seed, tag, severity, zlib.crc32(i.encode())]) for i in ids]
    pixels = np.asarray(images, np.float32) / np.float32(255)
    spoilt = kind()(pixels, table[severity - 1], rngs)
    # A thousandth of a grey level keeps float32's 254.99998 from becoming 254.
    return np.asarray(np.clip(spoilt * 255 + 1e-3, 0, 255), np.uint8)
