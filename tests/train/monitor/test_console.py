"""What a person sees: a bar on a terminal, plain lines elsewhere."""

import io
from dataclasses import replace

from rich.console import Console

from embedkit.train.monitor import Measures, Progress
from embedkit.train.monitor.console import describe, reporting

MEASURES = Measures(0.25, -1.5, 12.5, 0.125, 64)
PROGRESS = Progress(
    step=30,
    steps=100,
    epoch=1.5,
    loss=2.5,
    parts={"first": 1.0, "second": 1.5},
    grad_norm=0.5,
    lr=0.1,
    images_per_s=1234.4,
    seconds=60.0,
    eta_s=3723.0,
    measures=MEASURES,
    warning="the embeddings are collapsing [really]",
)


def test_one_line_says_everything():
    assert describe(PROGRESS) == (
        "epoch 1.5 loss 2.5000 (first 1.000 second 1.500) | 1234 images/s, 1:02:03 left | "
        "align 0.250 uniform -1.50 rank 12.5 std 0.125"
    )


def test_parts_and_alignment_are_left_out_where_they_say_nothing():
    one = Progress(
        **{
            **vars(PROGRESS),
            "parts": {"contrast": 2.5},
            "measures": Measures(None, -1.5, 12.5, 0.125, 64),
            "eta_s": 5.0,
        }
    )
    assert describe(one) == (
        "epoch 1.5 loss 2.5000 | 1234 images/s, 0:05 left | uniform -1.50 rank 12.5 std 0.125"
    )


def test_plain_lines_without_a_terminal():
    stream = io.StringIO()
    with reporting(Console(file=stream, width=40)) as report:
        report(PROGRESS)
    first, second = stream.getvalue().splitlines()
    assert first == f"step 30/100 {describe(PROGRESS)}"
    assert second == "warning: the embeddings are collapsing [really]"


def test_a_table_on_a_terminal():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=160, color_system=None)
    with reporting(console) as report:
        for step in range(20, 31):
            values = {"step": step, "warning": "", "knn": 0.875 if step == 29 else None}
            report(replace(PROGRESS, **values))
        report(PROGRESS)
    text = stream.getvalue()
    assert "collapsing [really]" in text
    last = text[text.rindex("step") :]
    heads, *rows = [line.split() for line in last.splitlines() if line.strip()]
    assert heads == [
        *("step", "epoch", "loss", "first", "second", "rank", "std"),
        *("uniform", "align", "grad", "lr", "kNN", "images/s"),
    ]
    shown = [row for row in rows if row[0].isdigit()]
    assert [row[0] for row in shown] == ["24", "25", "26", "27", "28", "29", "30", "30"]
    assert shown[-1] == [
        *("30", "1.5", "2.5000", "1.000", "1.500", "12.5", "0.125"),
        *("-1.50", "0.250", "0.5", "0.1", "1234"),
    ]
    assert "87.5%" in shown[-3]
    assert "30/100, 1:02:03 left" in last
