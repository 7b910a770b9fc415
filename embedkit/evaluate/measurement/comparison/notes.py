"""What sets reports apart beside their models, in sentences for the reader."""

from collections.abc import Mapping, Sequence

from embedkit.evaluate.measurement.comparison.stored import Stored

__all__ = ["is_about", "left_out", "missing_tasks", "notes_on", "other_options"]

_BY_SET = ("ood", "transfer", "drift", "parity", "robustness")
# Numbers of the task ood that are over several sets at once, and over all shifted ones.
_OVER_SETS = ("near_mean.", "far_mean.", "served_score.")
_OVER_SHIFTED = "full_spectrum."
_SHIFTED = "shifted."


def missing_tasks(reports: Sequence[Stored]) -> dict[str, str]:
    """Every task that some of the reports do not have, and which have it, in a sentence."""
    tasks = dict.fromkeys(task for report in reports for task in report.results)
    found = {}
    for task in tasks:
        having = [str(report.path) for report in reports if task in report.results]
        if len(having) < len(reports):
            found[task] = f"only {', '.join(having)} has it"
    return found


def notes_on(reports: Sequence[Stored]) -> tuple[str, ...]:
    """Invalid reports, and seeds, options and training images that are not those of all."""
    found = [
        f"{report.path} is invalid, its numbers may be of several models: "
        f"{_listed(report.values.get('problems'))}"
        for report in reports
        if report.values.get("status") == "invalid"
    ]
    seeds = [report.run.get("seed") for report in reports]
    if _differ(seeds):
        found.append(
            f"the runs had other seeds ({_listed(seeds)}): other images may have been chosen"
        )
    for option, values in other_options(reports).items():
        found.append(f"the runs had other options: {option} ({_listed(values)})")
    if _differ([report.digest("train") for report in reports]):
        found.append("the runs had other training images")
    return tuple(found)


def other_options(reports: Sequence[Stored]) -> dict[str, list[object]]:
    """Values of each option that all reports state and that is not the same in all."""
    every = [report.options for report in reports]
    common = [name for name in every[0] if all(name in options for options in every)]
    values = {name: [options[name] for options in every] for name in common}
    return {name: each for name, each in values.items() if _differ(each)}


def left_out(reports: Sequence[Stored]) -> dict[str, str]:
    """Every set beside the test images that is not the same in all, and what follows.

    A shifted set has ``shifted.`` before its name.
    """
    sets = [
        report.novel | {_SHIFTED + name: digest for name, digest in report.shifted.items()}
        for report in reports
    ]
    return {
        name: "the reports have other images under this name, or none; metrics of this set "
        "are left out"
        for name in dict.fromkeys(name for each in sets for name in each)
        if _differ([each.get(name) for each in sets])
    }


def is_about(name: str, sets: Mapping[str, object]) -> bool:
    """Whether a number is about one of these sets.

    Args:
        name: ``<task>.<metric or array>``.
        sets: The sets by name, as ``left_out`` names them.
    """
    task, _, rest = name.partition(".")
    if not sets or task not in _BY_SET:
        return False
    if task == "ood" and rest.startswith(_OVER_SETS):
        return True
    if rest.startswith(_OVER_SHIFTED) and any(s.startswith(_SHIFTED) for s in sets):
        return True
    names = [s.removeprefix(_SHIFTED) for s in sets]
    return any(f".{s}." in f".{rest}." or rest.startswith(f"ood_{s}.") for s in names)


def _differ(values: Sequence[object]) -> bool:
    return any(value != values[0] for value in values)


def _listed(values: object) -> str:
    each = values if isinstance(values, list) and values else ["no reason given"]
    return ", ".join(map(str, each))
