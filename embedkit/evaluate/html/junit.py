"""The outcome of a run as JUnit XML, which every CI system shows."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree

__all__ = ["to_junit"]

Json = Mapping[str, object]

# What XML 1.0 cannot hold, whatever the escape.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(report: Json) -> str:
    """Return one test case per task, per gate and for the run itself.

    Args:
        report: The content of ``report.json``.

    Returns:
        XML with a declaration. A skipped task is a skipped case, a failed task or a problem of
        the run an error, a gate that does not hold a failure.
    """
    model = _mapping(report.get("model"))
    timing = _mapping(report.get("timing"))
    root = ElementTree.Element("testsuites")
    name = " ".join(filter(None, (str(model.get("name", "")), str(model.get("version", "")))))
    suite = ElementTree.SubElement(root, "testsuite", name=_clean(f"embedkit eval {name}"))
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)

    def case(group: str, name: str, seconds: object, kind: str = "", why: str = "") -> None:
        element = ElementTree.SubElement(
            suite, "testcase", classname=f"embedkit.{group}", name=_clean(name)
        )
        element.set("time", f"{seconds:.3f}" if isinstance(seconds, int | float) else "0")
        counts["tests"] += 1
        if kind:
            counts[{"failure": "failures", "error": "errors"}.get(kind, kind)] += 1
            ElementTree.SubElement(element, kind, message=_clean(why))

    problems = [str(problem) for problem in _list(report.get("problems"))]
    case("run", "valid", 0, "error" if problems else "", "; ".join(problems))
    for result in map(_mapping, _list(report.get("results"))):
        task, status = str(result.get("task")), result.get("status")
        kind = {"failed": "error", "skipped": "skipped"}.get(str(status), "")
        warnings = [str(warning) for warning in _list(result.get("warnings"))]
        case("task", task, timing.get(task), kind, warnings[0] if warnings else "")
    for gate in map(_mapping, _list(report.get("gates"))):
        reason = str(gate.get("reason") or f"the value is {gate.get('value')}")
        case("gate", str(gate.get("gate")), 0, "" if gate.get("passed") else "failure", reason)
    for key, count in counts.items():
        suite.set(key, str(count))
        root.set(key, str(count))
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)


def _mapping(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []
