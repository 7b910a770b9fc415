"""The options of every command that talks to a server: address, token and TLS."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import click

if TYPE_CHECKING:
    from embedkit.client.sync import Client
    from embedkit.client.tls import TlsChoice

__all__ = ["Target", "connected"]

P = ParamSpec("P")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NAMES = ("server", "token", "tls", "tls_ca", "tls_cert", "tls_key", "tls_server_name")


@dataclass(frozen=True)
class Target:
    """The server that a command talks to, as its options say.

    Attributes:
        server: ``HOST:PORT``.
        token: API key or admin token, or None.
        tls: Use TLS; any file or name below does too.
        tls_ca: Authorities that may vouch for the server.
        tls_cert: The client's certificate.
        tls_key: Its key.
        tls_server_name: Name in the server's certificate.
    """

    server: str
    token: str | None = None
    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str | None = None

    @property
    def security(self) -> "TlsChoice":
        """What ``embedkit.connect`` takes as ``tls``."""
        from embedkit.client.tls import Tls

        ca, cert, key = self.tls_ca, self.tls_cert, self.tls_key
        if not (self.tls or ca or cert or key or self.tls_server_name):
            return False
        return Tls(ca, cert, key, self.tls_server_name or "")

    def connect(self, *, retry_s: float = 10.0, timeout_s: float | None = 60.0) -> "Client":
        """A client of the server; see ``embedkit.connect``."""
        from embedkit.client.sync import connect

        return connect(
            self.server,
            retry_s=retry_s,
            timeout_s=timeout_s,
            token=self.token,
            tls=self.security,
        )


def connected(
    default: str | None = "127.0.0.1:50051",
) -> Callable[[Callable[Concatenate[Target, P], None]], Callable[P, None]]:
    """Decorate a command with the options of a connection; it gets them as a ``Target`` first.

    Args:
        default: Of the address; None makes ``--server`` required.
    """

    def decorate(function: Callable[Concatenate[Target, P], None]) -> Callable[P, None]:
        @functools.wraps(function)
        def command(*args: P.args, **kwargs: P.kwargs) -> None:
            target = Target(**{name: kwargs.pop(name) for name in _NAMES})  # type: ignore[arg-type]
            return function(target, *args, **kwargs)

        made: Callable[P, None] = command
        for option in reversed(_options(default)):
            made = option(made)
        return made

    return decorate


def _options(default: str | None) -> list[Callable[[Callable[P, None]], Callable[P, None]]]:
    def file(name: str, text: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
        variable = "EMBEDKIT_" + name.upper().replace("-", "_")
        return click.option(f"--{name}", type=_FILE, envvar=variable, help=text)

    text = "Address of the server."
    # A default of None counts as a value: then the option would not be required after all.
    server = (
        click.option("--server", required=True, metavar="HOST:PORT", help=text)
        if default is None
        else click.option(
            "--server", default=default, show_default=True, metavar="HOST:PORT", help=text
        )
    )
    return [
        server,
        click.option(
            "--token",
            envvar="EMBEDKIT_TOKEN",
            help="API key or admin token; better as EMBEDKIT_TOKEN, which no list of processes "
            "shows.",
        ),
        click.option("--tls", is_flag=True, envvar="EMBEDKIT_TLS", help="Encrypt."),
        file("tls-ca", "Authorities that may vouch for the server, PEM."),
        file("tls-cert", "Certificate that the server asks clients for, PEM."),
        file("tls-key", "Its key, PEM."),
        click.option(
            "--tls-server-name",
            envvar="EMBEDKIT_TLS_SERVER_NAME",
            metavar="NAME",
            help="Name in the server's certificate, if not that of the address.",
        ),
    ]
