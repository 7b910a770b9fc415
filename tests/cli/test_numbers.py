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


def test_no_option_takes_nan() -> None:
    """No command has click's own type, which does."""

    def numbers(command: click.Command) -> list[click.ParamType]:
        found = [option.type for option in command.params]
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                part = command.get_command(context, name)
                assert part is not None
                found += numbers(part)
        return [kind for kind in found if isinstance(kind, click.FloatRange)]

    kinds = numbers(cli)
    assert len(kinds) >= 15
    assert all(isinstance(kind, Number) for kind in kinds)
