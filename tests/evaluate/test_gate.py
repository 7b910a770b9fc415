import pytest

from embedkit.errors import InvalidInput
from embedkit.evaluate.gate import Gate, check_gates, parse_gate
from embedkit.evaluate.task import Metric, TaskResult, skipped

SUITE = ("knn", "ood", "parity")


def result(value: float) -> TaskResult:
    metrics = {"top1": Metric(value, None, 10), "top1_k5": Metric(0.5, None, 10)}
    return TaskResult("knn", metrics)


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("knn.top1>=0.95", Gate("knn", "top1", ">=", 0.95)),
        (" ood.kmnist.knn.auroc > 9e-1 ", Gate("ood", "kmnist.knn.auroc", ">", 0.9)),
        (
            "parity.local_vs_served.knn_flips == 0",
            Gate("parity", "local_vs_served.knn_flips", "==", 0),
        ),
        ("parity.a.max_abs_error<=1e-5", Gate("parity", "a.max_abs_error", "<=", 1e-5)),
        ("knn.top1_k5<1", Gate("knn", "top1_k5", "<", 1)),
    ],
)
def test_gates_are_read(text, gate):
    assert parse_gate(text, SUITE) == gate


@pytest.mark.parametrize(
    "text", ["", "knn.top1", "knn>=1", "knn.top1=>1", "knn.top1>=", "1<knn.top1"]
)
def test_what_is_no_gate(text):
    with pytest.raises(InvalidInput, match="expected a gate like"):
        parse_gate(text, SUITE)


def test_a_limit_is_a_number():
    with pytest.raises(InvalidInput, match="expected a number as limit, got 'high'"):
        parse_gate("knn.top1>=high", SUITE)


def test_the_task_must_run():
    with pytest.raises(InvalidInput, match=r"add 'linear' to --suite"):
        parse_gate("linear.top1>=0.9", SUITE)


@pytest.mark.parametrize(
    ("comparison", "value", "passed"),
    [
        (">=", 0.9, True),
        (">=", 0.8999, False),
        (">", 0.9, False),
        ("<=", 0.9, True),
        ("<", 0.9, False),
        ("<", 0.8, True),
        ("==", 0.9, True),
        ("==", 0.91, False),
    ],
)
def test_comparison_with_the_point_estimate(comparison, value, passed):
    (outcome,) = check_gates([Gate("knn", "top1", comparison, 0.9)], [result(value)])
    assert outcome.passed is passed
    assert outcome.gate == f"knn.top1{comparison}0.9"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("comparison", [">=", "<="])
def test_a_metric_that_is_not_finite_passes_nothing_and_is_null(comparison, value):
    (outcome,) = check_gates([Gate("knn", "top1", comparison, 0.9)], [result(value)])
    assert (outcome.value, outcome.passed, outcome.is_unknown) == (None, False, False)
    assert outcome.reason == f"expected a finite knn.top1, got {value}"


@pytest.mark.parametrize("limit", ["0.9999995", "1e-05", "0", "0.1", "123456789"])
def test_the_text_of_a_gate_has_every_digit_of_its_limit(limit):
    assert str(parse_gate(f"knn.top1>={limit}", SUITE)) == f"knn.top1>={limit}"


def test_an_unknown_metric_lists_near_names():
    (outcome,) = check_gates([Gate("knn", "top1_k6", ">=", 0.9)], [result(1)])
    assert outcome.is_unknown
    assert not outcome.passed
    assert "knn.top1_k5" in outcome.reason
    (far,) = check_gates([Gate("knn", "zzz", ">=", 0.9)], [result(1)])
    assert "knn.top1, knn.top1_k5" in far.reason


@pytest.mark.parametrize("status", ["skipped", "failed"])
def test_a_task_without_an_answer_does_not_pass(status):
    given = TaskResult("knn", status=status, warnings=("no labels",))
    (outcome,) = check_gates([Gate("knn", "top1", ">=", 0)], [given])
    assert (outcome.value, outcome.passed, outcome.is_unknown) == (None, False, False)
    assert outcome.reason == f"knn {status}: no labels"


def test_a_failed_task_may_still_pass_on_what_it_found():
    partial = TaskResult(
        "knn", {"top1": Metric(0.9, None, 3)}, status="failed", warnings=("x",)
    )
    assert check_gates([Gate("knn", "top1", ">=", 0.5)], [partial])[0].passed


def test_a_task_that_did_not_run():
    (outcome,) = check_gates([Gate("ood", "top1", ">=", 0)], [skipped("knn", "x")])
    assert outcome.reason == "ood did not run"
