"""Watch: the monitor, with the images it looks at and whatever else it writes to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from embedkit.encoders.encoder import Encoder
from embedkit.train.images import TrainingImages
from embedkit.train.monitor.page import write_page
from embedkit.train.monitor.probe import Probe
from embedkit.train.monitor.record import Monitor, Progress, Report
from embedkit.train.monitor.writers import Writer, open_writers
from embedkit.train.recipe import Recipe

__all__ = ["Watch"]


@dataclass
class Watch:
    """What is seen of one run; a context that leaves every log whole.

    Attributes:
        recipe: What is run.
        monitor: Takes the numbers of each step.
        probe: Looks at some images again and again, or None.
        writers: Get every line of the metrics too.
        folder: The run folder.
        class_names: Of the data.
    """

    recipe: Recipe
    monitor: Monitor
    probe: Probe | None
    writers: Sequence[Writer]
    folder: Path
    class_names: tuple[str, ...]

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        monitor: Monitor,
        images: TrainingImages,
        folder: Path,
        step: int,
        *,
        writes: bool,
    ) -> "Watch":
        """Begin to watch.

        Args:
            recipe: What is run.
            monitor: Gets a ``report`` that tells the writers too.
            images: All training images.
            folder: The run folder.
            step: Steps done.
            writes: Whether this process writes files; else it looks at nothing.

        Raises:
            MissingDependency: If a writer's package is not installed.
        """
        settings, probe, writers = recipe.run, None, []
        if writes:
            writers = open_writers(settings.writers, folder, recipe, step)
            if settings.probe_steps:
                count = settings.probe_images
                probe = Probe.of(images, folder, count=count, seed=recipe.seed)
        monitor.report = _all(monitor.report, writers)
        return cls(recipe, monitor, probe, writers, folder, images.class_names)

    def is_due(self, step: int) -> bool:
        """Whether it is time for a look."""
        every = self.recipe.run.probe_steps
        return every > 0 and (step % every == 0 or step == self.monitor.steps)

    def look(self, encoder: Encoder, step: int) -> float | None:
        """Look at the probe's images if it is time; see ``Probe.look``."""
        if self.probe is None or not self.is_due(step):
            return None
        return self.probe.look(encoder, step)

    def write_page(self) -> None:
        """Write ``report.html`` as things are."""
        write_page(self.folder, self.recipe, self.class_names, self.monitor.warnings)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self.writers:
            writer.close()


def _all(report: Report | None, writers: Sequence[Writer]) -> Report | None:
    """Every listener as one."""
    if not writers:
        return report

    def tell(progress: Progress) -> None:
        for writer in writers:
            writer.write(progress)
        if report is not None:
            report(progress)

    return tell
