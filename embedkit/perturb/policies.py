"""Published policies: which operations, how probable, and how strong.

Strengths are levels of a scale that every operation translates into its own unit: 0 to 30 in
RandAugment, 0 to 9 in AutoAugment. Signs of what has one are drawn.
"""

from collections.abc import Mapping

from embedkit.perturb.operations import OPERATIONS

__all__ = ["POLICIES", "RAND_AUGMENT", "SIGNED", "strength_of"]

Step = tuple[str, float, int]
"""An operation, its probability and its level; operations without a strength ignore it."""

SIGNED = frozenset(
    {
        *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
        *("brightness", "colour", "contrast", "sharpness"),
    }
)
"""Operations whose strength is drawn positive or negative."""

_LARGEST = {
    "shear_x": 0.3,
    "shear_y": 0.3,
    # 150 pixels of the 331 that the images of the paper have.
    "translate_x": 150 / 331,
    "translate_y": 150 / 331,
    "rotate": 30.0,
    "brightness": 0.9,
    "colour": 0.9,
    "contrast": 0.9,
    "sharpness": 0.9,
}


def strength_of(operation: str, level: float, levels: int) -> float:
    """What a level means to an operation.

    Args:
        operation: A name of ``OPERATIONS``.
        level: From 0, nothing, to ``levels - 1``.
        levels: 31 in RandAugment, 10 in AutoAugment.
    """
    share = level / (levels - 1)
    if operation == "posterize":
        return 8.0 - round(4 * share)
    if operation == "solarize":
        return 1.0 - share
    return share * _LARGEST.get(operation, 0.0)


RAND_AUGMENT = tuple(name for name in OPERATIONS if name != "invert")
"""The 14 operations of RandAugment (Cubuk et al., 2020), the identity among them."""

# Cubuk et al. (2019), appendix: the sub-policies found on ImageNet (table 9).
_IMAGENET: tuple[tuple[Step, Step], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("colour", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("colour", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("colour", 1.0, 2)),
    (("colour", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("colour", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("colour", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)

# The same, found on CIFAR-10 (table 7).
_CIFAR10: tuple[tuple[Step, Step], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("colour", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("colour", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("auto_contrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("colour", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("colour", 0.9, 9), ("equalize", 0.6, 6)),
    (("auto_contrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("colour", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 1)),
)

POLICIES: Mapping[str, tuple[tuple[Step, Step], ...]] = {
    "imagenet": _IMAGENET,
    "cifar10": _CIFAR10,
}
"""AutoAugment's sub-policies, 25 each, by the data that they were found on."""
