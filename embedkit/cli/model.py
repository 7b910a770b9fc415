"""``embedkit model``: what a server has loaded, and changing it while it runs."""

import json
from dataclasses import asdict

import click

from embedkit.cli.connection import Target, connected
from embedkit.cli.options.number import Number

__all__ = ["command"]


@click.group(name="model")
def command() -> None:
    """List, load and unload the models of a running server."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@connected()
def list_all(target: Target, as_json: bool) -> None:
    """List every loaded version."""
    with target.connect() as client:
        found = client.models()
    if as_json:
        click.echo(json.dumps([{**asdict(m), "input": m.input.to_dict()} for m in found]))
        return
    for model in found:
        provider = model.provider.removesuffix("ExecutionProvider")
        facts = (f"{model.dim} dimensions", model.precision, provider)
        click.echo(f"{model.name}:{model.version}  {'  '.join(facts)}")


@command.command(name="load")
@click.argument("model", metavar="NAME[:VERSION]")
@click.option("--timeout-s", type=Number(0, min_open=True), default=600.0, show_default=True)
@connected()
def load(target: Target, model: str, timeout_s: float) -> None:
    """Load a version from the server's models folder, by default the latest there.

    Returns once it has passed its checks and is in use. The version before stays loaded.
    Needs the admin token.
    """
    name, _, version = model.partition(":")
    with target.connect(timeout_s=timeout_s) as client:
        made = client.load_model(name, version)
    click.echo(f"loaded {made.name}:{made.version} {made.digest}")


@command.command(name="unload")
@click.argument("model", metavar="NAME[:VERSION]")
@connected()
def unload(target: Target, model: str) -> None:
    """Give a version up; VERSION may be left out where one is loaded.

    Calls that reached it before are answered. Needs the admin token.
    """
    name, _, version = model.partition(":")
    with target.connect() as client:
        client.unload_model(name, version)
    click.echo(f"unloaded {model}")
