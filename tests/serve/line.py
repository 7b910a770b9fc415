"""A batcher on a clock that tests set, and what is in its batches."""

from dataclasses import dataclass, field

from embedkit.serve.batcher import Batcher, BatchLimits
from embedkit.serve.job import Batch, Job, Priority

BULK = Priority.BULK


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Line:
    """A batcher whose payloads are the images' own names, and whose finished jobs are kept."""

    limits: BatchLimits = field(default_factory=lambda: BatchLimits(4, 100, 1000))
    clock: Clock = field(default_factory=Clock)
    finished: list[Job] = field(default_factory=list)
    batcher: Batcher = field(init=False)

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.limits, self.clock)

    def offer(
        self,
        name: str,
        count: int = 1,
        size: int | None = None,
        deadline: float | None = None,
        priority: Priority = Priority.INTERACTIVE,
        image_s: float = 0.0,
    ) -> Job:
        images = [f"{name}{i}" for i in range(count)]
        size_bytes = count if size is None else size
        return self.batcher.offer(
            images,
            count,
            size_bytes,
            priority=priority,
            deadline=deadline,
            image_s=image_s,
            on_finish=self.finished.append,
        )

    def alone(self, name: str, deadline: float | None = None) -> Job:
        return self.batcher.offer_alone(
            [f"{name}0"], deadline=deadline, on_finish=self.finished.append
        )

    def take(self) -> Batch:
        batch = self.batcher.take()
        assert batch is not None
        return batch


def names(batch: Batch | None) -> list[str]:
    assert batch is not None
    return [name for s in batch.slices for name in s.payload[s.start : s.stop]]


def answers(job: Job) -> list[str]:
    assert job.error is None
    return [(p.result or [])[p.row + i] for p in job.parts for i in range(p.stop - p.start)]
