"""Warns of a server that strangers can reach and use, or listen to."""

import logging

from embedkit.serve.access.auth import AuthConfig
from embedkit.serve.access.tls import TlsConfig

__all__ = ["warn_of_exposure"]

log = logging.getLogger(__name__)

_NEAR = ("127.", "localhost:", "[::1]:", "unix:")


def warn_of_exposure(bind: str, auth: AuthConfig, tls: TlsConfig | None) -> None:
    """Say loudly what an address beyond this machine is missing.

    Args:
        bind: Address that the server listens on.
        auth: The credentials that it asks for.
        tls: Its certificate, or None.
    """
    if bind.startswith(_NEAR):
        return
    knows_callers = auth.has_keys or (tls is not None and tls.client_ca is not None)
    if not knows_callers:
        missing = "neither TLS nor keys" if tls is None else "no keys"
        log.warning(
            "ANYONE WHO REACHES %s CAN USE THIS SERVER: it has %s; bind to 127.0.0.1, or give "
            "--keys-file or --tls-client-ca",
            bind,
            missing,
        )
    elif tls is None:
        log.warning(
            "ANYONE ON THE WAY TO %s CAN READ ITS KEYS AND IMAGES: it has keys but no TLS; "
            "give --tls-cert and --tls-key, or end TLS in a proxy on this machine",
            bind,
        )
