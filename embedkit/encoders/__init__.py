"""Encoders: torch modules from uint8 images to features."""

__all__ = ["PARTS"]

PARTS = ("encoder", "heads", "description", "folding", "patches", "transformer", "weights")
"""Modules beside the architectures, which are the others."""
