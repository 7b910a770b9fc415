"""What a run says of itself: numbers, a look at its embeddings, a page, other tools' logs."""

from embedkit.train.monitor.record import Measures, Monitor, Progress, Report, measure

__all__ = ["Measures", "Monitor", "Progress", "Report", "measure"]
