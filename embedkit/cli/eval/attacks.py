"""The options of ``embedkit eval`` that say what is attacked, by whom and how much."""

from collections.abc import Callable
from typing import Literal, TypedDict, TypeVar

import click

from embedkit.cli.options.names import names_in
from embedkit.cli.options.number import Number

__all__ = ["AttackOptions", "AttackSettings", "attack_options", "attack_settings"]

Command = TypeVar("Command", bound=Callable[..., object])

_POSITIVE = Number(0, 255, min_open=True)


class AttackOptions(TypedDict):
    """The options, as click hands them over."""

    attacks: str
    head: str
    norm: tuple[Literal["linf", "l2", "patch"], ...]
    radius: tuple[float, ...]
    l2_radius: tuple[float, ...]
    patch_side: tuple[int, ...]
    limit_attack: int
    pgd_steps: int
    square_queries: int
    encoding: Literal["uint8", "png", "jpeg"]
    jpeg_quality: int
    attack_checks: bool


class AttackSettings(TypedDict):
    """The same, as the evaluation takes them."""

    attacks: tuple[str, ...]
    heads: tuple[str, ...]
    norms: tuple[Literal["linf", "l2", "patch"], ...]
    radii_255: tuple[float, ...]
    l2_radii_255: tuple[float, ...]
    patch_sides_px: tuple[int, ...]
    attack_images: int
    pgd_steps: int
    square_queries: int
    encoding: Literal["uint8", "png", "jpeg"]
    jpeg_quality: int
    attack_checks: bool


_OPTIONS = (
    click.option(
        "--attacks",
        default="pgd,square",
        metavar="NAME,...",
        help="Attacks of the robustness task; embedkit list attacks has all.",
    ),
    click.option(
        "--head",
        default="knn",
        metavar="NAME,...",
        help="Decisions to attack: knn, linear, cosine, search, ood.",
    ),
    click.option(
        "--norm",
        type=click.Choice(("linf", "l2", "patch")),
        multiple=True,
        default=("linf",),
        help="What an attack may change; repeat for more.",
    ),
    click.option(
        "--radius",
        type=_POSITIVE,
        multiple=True,
        default=(1.0, 2.0, 4.0, 8.0),
        help="Linf radius of the attacks in steps of 1/255; repeat for more.",
    ),
    click.option(
        "--l2-radius",
        type=Number(0, min_open=True),
        multiple=True,
        default=(32.0, 64.0, 128.0),
        help="L2 radius of the attacks in steps of 1/255; repeat for more.",
    ),
    click.option(
        "--patch-side",
        type=click.IntRange(1),
        multiple=True,
        default=(2, 4, 8),
        help="Side of the square that a patch attack may change, in pixels; repeat for more.",
    ),
    click.option(
        "--limit-attack",
        type=click.IntRange(1),
        default=200,
        help="Test images to try attacks on.",
    ),
    click.option(
        "--pgd-steps", type=click.IntRange(1), default=40, help="Steps of white-box attacks."
    ),
    click.option(
        "--square-queries",
        type=click.IntRange(1),
        default=500,
        help="Queries per image of black-box attacks.",
    ),
    click.option(
        "--encoding",
        type=click.Choice(("uint8", "png", "jpeg")),
        default="uint8",
        help="How attacked images are sent to the server.",
    ),
    click.option(
        "--jpeg-quality",
        type=click.IntRange(1, 95),
        default=75,
        help="Of attacked images that are sent as JPEG.",
    ),
    click.option(
        "--attack-checks/--no-attack-checks",
        default=True,
        help="Whether to run further attacks that check the others.",
    ),
)


def attack_options(command: Command) -> Command:
    """Add the options to a command, in their order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def attack_settings(options: AttackOptions) -> AttackSettings:
    """Return the options as the evaluation takes them.

    Raises:
        InvalidInput: If an attack is unknown or one is left empty.
    """
    from embedkit.errors import InvalidInput
    from embedkit.evaluate.attack import attacks

    names, heads = names_in([options["attacks"]]), names_in([options["head"]])
    if not names or not heads:
        raise InvalidInput(
            f"expected at least one attack and one head, got {options['attacks']!r} and "
            f"{options['head']!r}"
        )
    for name in names:
        if name not in attacks.names():
            attacks.get(name)
    return AttackSettings(
        attacks=names,
        heads=heads,
        norms=tuple(dict.fromkeys(options["norm"])),
        radii_255=tuple(sorted(set(options["radius"]))),
        l2_radii_255=tuple(sorted(set(options["l2_radius"]))),
        patch_sides_px=tuple(sorted(set(options["patch_side"]))),
        attack_images=options["limit_attack"],
        pgd_steps=options["pgd_steps"],
        square_queries=options["square_queries"],
        encoding=options["encoding"],
        jpeg_quality=options["jpeg_quality"],
        attack_checks=options["attack_checks"],
    )
