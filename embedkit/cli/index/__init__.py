"""``embedkit index``: collections of a server, filled from DATA and searched by image."""

import click

from embedkit.cli.index.collections import compact, create, drop, list_all, stats, verify
from embedkit.cli.index.content import add, delete
from embedkit.cli.index.recall import recall
from embedkit.cli.index.records import get, sample
from embedkit.cli.index.search import duplicates, search
from embedkit.cli.index.transfer import export, load

__all__ = ["command"]

_COMMANDS = (
    create,
    add,
    search,
    duplicates,
    get,
    sample,
    delete,
    export,
    load,
    stats,
    recall,
    verify,
    list_all,
    compact,
    drop,
)


@click.group(name="index")
def command() -> None:
    """Create, fill, search and inspect collections of a server."""


for _command in _COMMANDS:
    command.add_command(_command)
