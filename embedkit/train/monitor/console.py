"""Progress on a terminal: a table where there is one, plain lines where there is none."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from embedkit.train.monitor import Progress, Report

__all__ = ["describe", "reporting"]

_ROWS = 8
"""Lines of the metrics that a terminal shows."""


@contextmanager
def reporting(console: Console) -> Iterator[Report]:
    """Give a report for ``train`` that shows each line of the metrics.

    Args:
        console: A terminal gets one table that is drawn anew, anything else one line per
            report.
    """
    if not console.is_terminal:
        yield lambda progress: _show_line(console, progress)
        return
    recent: deque[Progress] = deque(maxlen=_ROWS)
    with Live(console=console, refresh_per_second=4) as live:

        def show(progress: Progress) -> None:
            recent.append(progress)
            live.update(_table(recent))
            _show_warning(live.console, progress)

        yield show


def _table(recent: Sequence[Progress]) -> Group:
    """The latest lines below each other, so that one sees where they go, and how far it is."""
    last = recent[-1]
    parts = list(last.parts) if len(last.parts) > 1 else []
    has_knn = any(progress.knn is not None for progress in recent)
    names = ["step", "epoch", "loss", *parts, "rank", "std", "uniform", "align", "grad", "lr"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in [*names, *(["kNN"] if has_knn else []), "images/s"]:
        table.add_column(Text(name), justify="right")
    for progress in recent:
        measures = progress.measures
        losses = [f"{progress.parts.get(name, math.nan):.3f}" for name in parts]
        knn = "" if progress.knn is None else f"{progress.knn:.1%}"
        table.add_row(
            str(progress.step),
            f"{progress.epoch:.1f}",
            f"{progress.loss:.4f}",
            *losses,
            f"{measures.effective_rank:.1f}",
            f"{measures.embedding_std:.3f}",
            f"{measures.uniformity:.2f}",
            "" if measures.alignment is None else f"{measures.alignment:.3f}",
            f"{progress.grad_norm:.2g}",
            f"{progress.lr:.2g}",
            *([knn] if has_knn else []),
            f"{progress.images_per_s:.0f}",
        )
    bar = ProgressBar(total=last.steps, completed=last.step, width=40)
    text = f"{last.step}/{last.steps}, {_duration(last.eta_s)} left"
    return Group(table, bar, Text(text))


def describe(progress: Progress) -> str:
    """One line of text: loss and its parts, speed, time left, collapse measures."""
    measures = progress.measures
    parts = " ".join(f"{name} {value:.3f}" for name, value in progress.parts.items())
    aligned = "" if measures.alignment is None else f"align {measures.alignment:.3f} "
    return (
        f"epoch {progress.epoch:.1f} loss {progress.loss:.4f}"
        f"{f' ({parts})' if len(progress.parts) > 1 else ''} | "
        f"{progress.images_per_s:.0f} images/s, {_duration(progress.eta_s)} left | "
        f"{aligned}uniform {measures.uniformity:.2f} rank {measures.effective_rank:.1f} "
        f"std {measures.embedding_std:.3f}"
    )


def _show_line(console: Console, progress: Progress) -> None:
    text = f"step {progress.step}/{progress.steps} {describe(progress)}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    _show_warning(console, progress)


def _show_warning(console: Console, progress: Progress) -> None:
    if progress.warning:
        text = f"warning: {progress.warning}"
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
