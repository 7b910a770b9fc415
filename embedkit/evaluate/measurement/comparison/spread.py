"""Several reports of one method: every metric over the training runs."""

from collections.abc import Sequence

from embedkit.errors import InvalidInput
from embedkit.evaluate.measurement.comparison.notes import is_about, left_out
from embedkit.evaluate.measurement.comparison.stored import Stored, are_the_same, check_same
from embedkit.evaluate.statistics import Spread, over_seeds

__all__ = ["spread_of_reports"]


def spread_of_reports(reports: Sequence[Stored]) -> dict[str, Spread]:
    """Every metric that all reports have, by ``<task>.<metric>``, over training runs.

    Metrics of an OOD set are left out where the reports have other images under its name.

    Raises:
        InvalidInput: If there are fewer than two, two are the same run, or they are over other
            test images.
    """
    if len(reports) < 2:
        raise InvalidInput(f"expected at least 2 reports, got {len(reports)}")
    for number, report in enumerate(reports):
        check_same(reports[0], report)
        for other in reports[:number]:
            if are_the_same(report, other):
                raise InvalidInput(
                    f"expected reports of several training runs, got {other.path} and "
                    f"{report.path} of one: the same model with the same results; give each "
                    "run once"
                )
    every, sets = [report.metrics for report in reports], left_out(reports)
    return {
        name: over_seeds([m[name].value for m in every], [m[name].ci for m in every])
        for name in every[0]
        if all(name in metrics for metrics in every) and not is_about(name, sets)
    }
