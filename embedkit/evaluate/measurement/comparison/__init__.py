"""Reports beside one another: two models image by image, several runs of one."""

from embedkit.evaluate.measurement.comparison.notes import left_out, missing_tasks, notes_on
from embedkit.evaluate.measurement.comparison.rows import Comparison, compare_reports
from embedkit.evaluate.measurement.comparison.spread import spread_of_reports
from embedkit.evaluate.measurement.comparison.stored import Stored, are_the_same, read_report

__all__ = [
    "Comparison",
    "Stored",
    "are_the_same",
    "compare_reports",
    "left_out",
    "missing_tasks",
    "notes_on",
    "read_report",
    "spread_of_reports",
]
