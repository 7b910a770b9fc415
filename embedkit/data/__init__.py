"""Data sources: every kind of image collection as one ``Dataset``."""
