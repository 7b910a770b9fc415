"""The options of ``embedkit eval`` that say what is certified, and at what cost."""

from collections.abc import Callable
from typing import TypedDict, TypeVar

import click

from embedkit.cli.options.number import Number

__all__ = ["CertifiedOptions", "CertifiedSettings", "certified_options", "certified_settings"]

Command = TypeVar("Command", bound=Callable[..., object])

_POSITIVE = Number(0, min_open=True)


class CertifiedOptions(TypedDict):
    """The options, as click hands them over."""

    certified_images: int
    certified_sigma: tuple[float, ...]
    certified_radius: tuple[float, ...]
    certified_select: int
    certified_estimate: int
    certified_alpha: float


class CertifiedSettings(TypedDict):
    """The same, as the evaluation takes them."""

    certified_images: int
    certified_sigmas_255: tuple[float, ...]
    certified_radii_255: tuple[float, ...]
    certified_select: int
    certified_estimate: int
    certified_alpha: float


_OPTIONS = (
    click.option(
        "--certified-images",
        type=click.IntRange(1),
        default=40,
        help="Test images of the certified task; each is sent as many noisy copies.",
    ),
    click.option(
        "--certified-sigma",
        type=_POSITIVE,
        multiple=True,
        default=(32.0,),
        help="Standard deviation of that noise in steps of 1/255; repeat for more.",
    ),
    click.option(
        "--certified-radius",
        type=_POSITIVE,
        multiple=True,
        default=(8.0, 16.0, 32.0),
        help="L2 distance to be certified in steps of 1/255; repeat for more.",
    ),
    click.option(
        "--certified-select",
        type=click.IntRange(1),
        default=200,
        help="Noisy copies per image that choose what is certified.",
    ),
    click.option(
        "--certified-estimate",
        type=click.IntRange(1),
        default=500,
        help="Noisy copies per image that certify it: the largest radius grows with them.",
    ),
    click.option(
        "--certified-alpha",
        type=Number(0, 0.5, min_open=True, max_open=True),
        default=0.001,
        help="Probability that a certificate is wrong.",
    ),
)


def certified_options(command: Command) -> Command:
    """Add the options to a command, in their order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def certified_settings(options: CertifiedOptions) -> CertifiedSettings:
    """Return the options as the evaluation takes them."""
    return CertifiedSettings(
        certified_images=options["certified_images"],
        certified_sigmas_255=tuple(sorted(set(options["certified_sigma"]))),
        certified_radii_255=tuple(sorted(set(options["certified_radius"]))),
        certified_select=options["certified_select"],
        certified_estimate=options["certified_estimate"],
        certified_alpha=options["certified_alpha"],
    )
