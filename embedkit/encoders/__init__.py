"""Encoders: torch modules from uint8 images to features."""
