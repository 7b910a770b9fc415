"""Options that say how hard an index tries, the same for every command that searches."""

from collections.abc import Callable
from typing import Any

import click

from embedkit.cli.options.number import Number

__all__ = ["effort"]


def effort(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the fields of ``SearchParams`` but ``exact``, None if not given.

    A kind of index that does not have one refuses it and says what to give in its place.
    """
    for option in (
        click.option(
            "--recall-target",
            type=Number(0, 1, min_open=True),
            help="Share of the true neighbours to find.",
        ),
        click.option("--ef", type=click.IntRange(1), help="Candidates that a graph keeps."),
        click.option("--nprobe", type=click.IntRange(1), help="Clusters to look through."),
    ):
        command = option(command)
    return command
