"""Known against novel images: metrics, protocols over several sets, and tests of drift."""

from embedkit.evaluate.measurement.novelty.separation import (
    METRICS,
    Separation,
    separation_metrics,
)

__all__ = ["METRICS", "Separation", "separation_metrics"]
