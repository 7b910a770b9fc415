"""embedkit: from a pile of images to a served, searchable, measured embedding model."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedkit.client.items import Batch
    from embedkit.client.sync import Client, connect
    from embedkit.client.tls import Tls
    from embedkit.errors import EmbedkitError
    from embedkit.runtime.local import load
    from embedkit.types import Embedder, Hit

__all__ = ["Batch", "Client", "Embedder", "EmbedkitError", "Hit", "Tls", "connect", "load"]

__version__ = "0.1.0"

_HOMES = {
    "Batch": "embedkit.client.items",
    "Client": "embedkit.client.sync",
    "EmbedkitError": "embedkit.errors",
    "Embedder": "embedkit.types",
    "Hit": "embedkit.types",
    "Tls": "embedkit.client.tls",
    "connect": "embedkit.client.sync",
    "load": "embedkit.runtime.local",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``import embedkit`` is light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'embedkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
