"""Progress on a terminal: a bar where there is one, plain lines where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from embedkit.train.monitor import Progress, Report

__all__ = ["describe", "reporting"]


@contextmanager
def reporting(console: Console) -> Iterator[Report]:
    """Give a report for ``train`` that shows each line of the metrics.

    Args:
        console: A terminal gets one moving bar, anything else one line per report.
    """
    if not console.is_terminal:
        yield lambda progress: _show_line(console, progress)
        return
    columns = (MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.description}"))
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("starting", total=None)

        def show(progress: Progress) -> None:
            text = describe(progress)
            bar.update(task, completed=progress.step, total=progress.steps, description=text)
            _show_warning(bar.console, progress)

        yield show


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
