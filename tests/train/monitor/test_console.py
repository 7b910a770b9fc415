"""What a person sees: a bar on a terminal, plain lines elsewhere."""

import io

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


def test_a_bar_on_a_terminal():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=160, color_system=None)
    with reporting(console) as report:
        report(PROGRESS)
    text = stream.getvalue()
    assert "30/100" in text
    assert "1234 images/s" in text
    assert "collapsing [really]" in text
