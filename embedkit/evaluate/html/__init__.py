"""Reports for people, as self-contained pages without scripts, and for CI as JUnit."""

from embedkit.evaluate.html.comparison import render_comparison
from embedkit.evaluate.html.page import render

__all__ = ["render", "render_comparison"]
