"""Corruptions, one per module; the module is named as the method."""
