"""Numbers as values of options."""

import click
import pytest
from click.testing import CliRunner

from embedkit.cli import cli
from embedkit.cli.options.number import Number


@pytest.mark.parametrize(
    ("text", "code"),
    [("1.5", 0), ("0", 2), ("nan", 2), ("-NaN", 2), ("x", 2), ("inf", 2), ("2", 0)],
)
def test_a_number_is_in_its_range(text: str, code: int) -> None:
    @click.command()
    @click.option("--share", type=Number(0, 2, min_open=True))
    def command(share: float) -> None:
        click.echo(share + 1)

    result = CliRunner().invoke(command, ["--share", text])
    assert result.exit_code == code
    if code and text != "x":
        assert f"{text} is not in the range 0<x<=2" in result.output


def options(command: click.Command) -> list[click.Parameter]:
    """Those of a command and of all below it."""
    found = list(command.params)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            assert part is not None
            found += options(part)
    return found


def test_no_option_takes_nan() -> None:
    """No command has click's own type, which does."""
    kinds = [p.type for p in options(cli) if isinstance(p.type, click.FloatRange)]
    assert len(kinds) >= 15
    assert all(isinstance(kind, Number) for kind in kinds)


def test_every_seed_is_at_least_0() -> None:
    """Numpy takes no other, and would say so in words of its own."""
    kinds = [p.type for p in options(cli) if p.name == "seed"]
    assert len(kinds) >= 6
    assert all(isinstance(kind, click.IntRange) and kind.min == 0 for kind in kinds)
