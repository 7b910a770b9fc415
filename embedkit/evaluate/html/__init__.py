"""Reports as self-contained pages: tables and inline SVG, no scripts, no network."""

from embedkit.evaluate.html.comparison import render_comparison
from embedkit.evaluate.html.page import render

__all__ = ["render", "render_comparison"]
