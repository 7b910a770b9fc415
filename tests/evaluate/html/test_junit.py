from xml.etree import ElementTree

import pytest

from embedkit.evaluate.html.junit import to_junit

REPORT = {
    "model": {"name": "toy", "version": "3"},
    "problems": [],
    "timing": {"knn": 1.25},
    "results": [
        {"task": "knn", "status": "ok", "warnings": ["few images"]},
        {"task": "ood", "status": "skipped", "warnings": ["no set"]},
        {"task": "parity", "status": "failed", "warnings": ["<gone> & \x00lost"]},
    ],
    "gates": [
        {"gate": "knn.top1>=0.9", "value": 0.95, "passed": True, "reason": ""},
        {"gate": "knn.top1>=0.99", "value": 0.95, "passed": False, "reason": ""},
    ],
}


@pytest.fixture
def suite():
    return ElementTree.fromstring(to_junit(REPORT).encode()).find("testsuite")


def test_every_task_and_gate_is_a_case(suite):
    names = [(c.get("classname"), c.get("name")) for c in suite]
    assert names == [
        ("embedkit.run", "valid"),
        ("embedkit.task", "knn"),
        ("embedkit.task", "ood"),
        ("embedkit.task", "parity"),
        ("embedkit.gate", "knn.top1>=0.9"),
        ("embedkit.gate", "knn.top1>=0.99"),
    ]
    assert [c.get("time") for c in suite][:3] == ["0.000", "1.250", "0"]


def test_outcomes_and_their_reasons(suite):
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "1", "errors": "1", "skipped": "1"}
    inside = [[(e.tag, e.get("message")) for e in case] for case in suite]
    assert inside == [
        [],
        [],
        [("skipped", "no set")],
        [("error", "<gone> & \ufffdlost")],
        [],
        [("failure", "the value is 0.95")],
    ]


def test_an_invalid_run_is_an_error():
    root = ElementTree.fromstring(to_junit({**REPORT, "problems": ["changed"]}).encode())
    first = root.find("testsuite/testcase")
    assert first.find("error").get("message") == "changed"
    assert root.get("errors") == "2"
