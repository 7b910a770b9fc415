"""``embedkit eval``: evaluate a served model, compare reports, or train for a study."""

import click

__all__ = ["command"]

_LINES = {
    "run": "Evaluate a served model; the word itself may be left out.",
    "compare": "Paired tests between the reports of two models.",
    "seeds": "Mean and spread over the reports of several training runs.",
    "backdoor": "Train with and without poisoned images; does the trigger work?",
    "membership": "Train with and without canaries; can it be told?",
}


class _RunByDefault(click.Group):
    """A group whose first word may be missing: options alone mean ``run``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every subcommand."""
        return [*_LINES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a subcommand."""
        if cmd_name == "run":
            from embedkit.cli.eval.run import command as run

            return run
        if cmd_name in ("compare", "seeds"):
            from embedkit.cli.eval import compare

            return compare.compare if cmd_name == "compare" else compare.seeds
        if cmd_name in ("backdoor", "membership"):
            from embedkit.cli.eval import studies

            return studies.backdoor if cmd_name == "backdoor" else studies.membership
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([*_LINES.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` in front of options."""
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.command(name="eval", cls=_RunByDefault)
def command() -> None:
    """Evaluate a served model and write a report, or compare reports.

    `embedkit eval --server ... --train DATA --test DATA --out DIR` evaluates; all options are
    those of `embedkit eval run`.
    """
