"""``embedkit.aio.connect``: the client for asyncio."""

from embedkit.client.aio import Client, connect

__all__ = ["Client", "connect"]
