"""Render docs/cli.md, docs/methods.md, docs/report.schema.json and README's command table.

``--check`` compares only.
"""

import re
import sys
from pathlib import Path

import click

from embedkit.cli import COMMANDS, cli
from embedkit.cli.list import REGISTRIES

ROOT = Path(__file__).resolve().parent.parent
NOTE = (
    "<!-- Rendered by tools/render_docs.py; edit the code instead, then run `make docs`. -->\n"
)


def render_cli() -> str:
    """The help of every command and subcommand."""
    parts = ["# Command line\n", NOTE]
    root = click.Context(cli, info_name="embedkit")
    for name in COMMANDS:
        command = cli.get_command(root, name)
        if command is not None:
            parts += _help_of(command, click.Context(command, info_name=name, parent=root), 2)
    return "\n".join(parts)


def _help_of(command: click.Command, context: click.Context, level: int) -> list[str]:
    """Help sections of a command and of everything below it."""
    context.terminal_width = context.max_content_width = 96
    text = command.get_help(context).rstrip()
    found = [f"{'#' * level} {context.command_path}\n", f"```text\n{text}\n```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                nested = click.Context(below, info_name=name, parent=context)
                found += _help_of(below, nested, level + 1)
    return found


def render_methods() -> str:
    """One table per registry: name and the first line of its documentation."""
    parts = ["# Methods\n", NOTE]
    for kind, registry in REGISTRIES.items():
        parts.append(f"## {kind}\n\n| name | what it is |\n|---|---|")
        parts += [f"| `{name}` | {registry.summary(name)} |" for name in registry.names()]
        parts.append("")
    return "\n".join(parts)


def render_readme(text: str) -> str:
    """README with its command table replaced."""
    rows = "\n".join(f"| `embedkit {name}` | {line} |" for name, line in COMMANDS.items())
    table = f"<!-- commands -->\n| command | does |\n|---|---|\n{rows}\n<!-- /commands -->"
    return re.sub(
        r"<!-- commands -->.*?<!-- /commands -->", lambda _: table, text, flags=re.DOTALL
    )


def main() -> int:
    """Write the documents, or with ``--check`` name those that are out of step."""
    readme = ROOT / "README.md"
    wanted = {
        ROOT / "docs" / "cli.md": render_cli(),
        ROOT / "docs" / "methods.md": render_methods(),
        ROOT / "docs" / "report.schema.json": (
            ROOT / "embedkit" / "evaluate" / "report.schema.json"
        ).read_text(encoding="utf-8"),
        readme: render_readme(readme.read_text(encoding="utf-8")),
    }
    stale = [
        path
        for path, text in wanted.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv:
        names = [str(path.relative_to(ROOT)) for path in stale]
        print(f"out of step: {names}; run `make docs`" if stale else "documents in step")
        return bool(stale)
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
