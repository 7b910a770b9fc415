"""Which way is better: of a number that two reports have in common, by its name."""

from collections.abc import Mapping

from embedkit.evaluate.measurement.comparison.stored import StoredMetric

__all__ = ["counts_failures", "higher_is_better"]

_FAILURES = ("wrong", "success")


def counts_failures(name: str) -> bool:
    """Whether True of a boolean array is what the model should not do.

    ``<corruption>.<severity>.wrong``, ``clean_wrong`` and ``wrong_<images>`` are errors,
    ``<attack>.<threat>.success`` and ``.<stage>_success`` are successes of the attacker.
    """
    last = name.rsplit(".", 1)[-1]
    return last.startswith("wrong_") or last.rsplit("_", 1)[-1] in _FAILURES


def higher_is_better(name: str, metrics: Mapping[str, StoredMetric]) -> bool:
    """The direction of the mean of an array, as the metric of that name or else the name says.

    Args:
        name: ``<task>.<array>``.
        metrics: Those of a report.
    """
    known = metrics.get(name)
    return not counts_failures(name) if known is None else known.higher_is_better
