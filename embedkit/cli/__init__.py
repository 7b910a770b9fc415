"""The command line: one lazily imported module per command.

The group knows each command's one-line help, so ``embedkit --help`` imports none of them.
This is the one place where an error becomes an exit code.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from embedkit.errors import EmbedkitError

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS = {
    "demo": "Run the main job on scikit-learn's digits: train to report.",
    "train": "Train an encoder from a recipe.",
    "export": "Write a bundle from a run, or from a model trained elsewhere.",
    "serve": "Serve bundles over gRPC.",
    "index": "Create, fill, search and inspect collections.",
    "eval": "Evaluate a served model and write a report.",
    "model": "List, load and unload the models of a server.",
    "bench": "Measure against the bare runtime.",
    "top": "Watch a server: rate, batches, queue, latency.",
    "bundle": "Show or verify a bundle, or fit a detector for it.",
    "list": "List objectives, augmentations, encoders, detectors, ...",
}


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Command names in the order of the data flow."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import ``embedkit.cli.<name>`` and return its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"embedkit.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"expected embedkit.cli.{cmd_name}.command to be a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command table without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="embedkit")
def cli() -> None:
    """Turn a pile of images into a served, searchable, measured embedding model.

    DATA, in every command, is one string: ``digits``, a folder, FILE.npz, FILE.zip, FILE.csv,
    ``idx:DIR`` or ``cifar10:DIR``; ``:test`` behind it takes the test split.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 good, 1 failed or a gate failed, 2 wrong usage."""
    try:
        code = cli.main(
            # Not list(...): the submodule `list` takes that name once it is imported.
            args=[*arguments] if arguments is not None else None,
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except EmbedkitError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(f"error: expected files and folders that can be used, got {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = _extra_for(error.name or "")
        if extra is None:
            raise
        click.echo(
            f"error: expected the package {error.name!r}, got none; "
            f"install it with: pip install 'embedkit[{extra}]'",
            err=True,
        )
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _extra_for(module: str) -> str | None:
    """The extra that brings a missing module, or None if the module is not optional."""
    top = module.split(".", 1)[0]
    extras = {
        "serve": {
            "onnxruntime",
            "faiss",
            "PIL",
            "prometheus_client",
            "grpc_health",
            "grpc_reflection",
        },
        "train": {"torch", "onnx", "onnxscript", "safetensors"},
        "otel": {"opentelemetry"},
        "parquet": {"pyarrow"},
        "eval": {"sklearn", "scipy", "jinja2", "matplotlib"},
    }
    return next((extra for extra, modules in extras.items() if top in modules), None)
