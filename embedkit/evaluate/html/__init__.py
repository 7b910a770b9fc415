"""The report as one self-contained page: tables and inline SVG, no scripts, no network."""

from embedkit.evaluate.html.page import render

__all__ = ["render"]
