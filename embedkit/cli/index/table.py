"""Tables on the terminal."""

import sys
from collections.abc import Mapping, Sequence

__all__ = ["print_table", "row_of"]


def print_table(headings: list[str], rows: list[list[str]], *, right: set[str]) -> None:
    """Print rows under headings; columns named in ``right`` hold numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(
            heading, justify="right" if heading in right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # A file or a pipe gets whole lines; a terminal folds them.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(table)


def row_of(payload: Mapping[str, object] | None, keys: Sequence[str]) -> list[str]:
    """The cells of a payload under its keys; empty where it has none."""
    return [str((payload or {}).get(key, "")) for key in keys]
