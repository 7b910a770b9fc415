"""``embedkit bench``: how fast, beside how fast it could be."""

import click

from embedkit.cli.bench.index import index
from embedkit.cli.bench.serve import serve
from embedkit.cli.bench.train import train

__all__ = ["command"]


@click.group(name="bench")
def command() -> None:
    """Measure against the bare runtime, in one run."""


for _command in (serve, index, train):
    command.add_command(_command)
