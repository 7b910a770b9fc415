"""The options of ``embedkit serve`` that say who may call: keys, admin token, rate, TLS."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import click

from embedkit.cli.options.number import Number
from embedkit.errors import InvalidInput

if TYPE_CHECKING:
    from embedkit.serve.access.auth import AuthConfig
    from embedkit.serve.access.tls import TlsConfig

__all__ = ["AccessOptions", "with_access"]

P = ParamSpec("P")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_KEYS, _ADMIN = "EMBEDKIT_API_KEYS", "EMBEDKIT_ADMIN_TOKEN"
_OPTIONS = (
    click.option(
        "--keys-file",
        type=_FILE,
        help=f"API keys, KEY or NAME:KEY per line, read again when it changes.  Or {_KEYS}.",
    ),
    click.option(
        "--admin-token-file",
        type=_FILE,
        help=f"Token for loading and unloading models, likewise.  Or {_ADMIN}.",
    ),
    click.option(
        "--rate-limit",
        type=Number(0),
        default=0.0,
        metavar="N",
        help="Images per second of each key; a call without images counts as one.  "
        "[default: no limit]",
        show_default=False,
    ),
    click.option("--tls-cert", type=_FILE, help="The server's certificate, PEM."),
    click.option("--tls-key", type=_FILE, help="Its key, PEM."),
    click.option(
        "--tls-client-ca", type=_FILE, help="Ask clients for certificates of these, PEM."
    ),
)


@dataclass(frozen=True)
class AccessOptions:
    """Who may call, as the options say; each attribute is one."""

    keys_file: Path | None
    admin_token_file: Path | None
    rate_limit: float
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None

    def auth(self) -> "AuthConfig":
        """The credentials, those of the environment included.

        Raises:
            InvalidInput: If a variable is set to nothing, or a rate limit has no keys.
        """
        from embedkit.serve.access.auth import AuthConfig

        return AuthConfig(
            keys=_from_environment(_KEYS),
            keys_file=self.keys_file,
            admin_tokens=_from_environment(_ADMIN),
            admin_token_file=self.admin_token_file,
            rate_limit=self.rate_limit,
        )

    def tls(self) -> "TlsConfig | None":
        """Certificate and key, or None.

        Raises:
            InvalidInput: If only some of the files are given.
        """
        from embedkit.serve.access.tls import TlsConfig

        if self.tls_cert is not None and self.tls_key is not None:
            return TlsConfig(self.tls_cert, self.tls_key, self.tls_client_ca)
        if self.tls_cert or self.tls_key or self.tls_client_ca:
            raise InvalidInput(
                "expected --tls-cert and --tls-key together, --tls-client-ca only with them, "
                f"got {self.tls_cert}, {self.tls_key} and {self.tls_client_ca}"
            )
        return None


def with_access(
    function: Callable[Concatenate[AccessOptions, P], None],
) -> Callable[P, None]:
    """Decorate a command with these options; it gets them as its first argument."""
    names = AccessOptions.__dataclass_fields__

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        chosen = AccessOptions(**{name: kwargs.pop(name) for name in names})  # type: ignore[arg-type]
        return function(chosen, *args, **kwargs)

    made: Callable[P, None] = command
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def _from_environment(variable: str) -> tuple[str, ...]:
    """Keys in a variable, between commas or space; none if it is not set.

    Raises:
        InvalidInput: If it is set and empty: a server that was meant to have keys must not
            start without.
    """
    text = os.environ.get(variable)
    if text is None:
        return ()
    found = tuple(text.replace(",", " ").split())
    if not found:
        raise InvalidInput(
            f"expected at least one key in {variable}, got an empty one; unset it to serve "
            "without"
        )
    return found
