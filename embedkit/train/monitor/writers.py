"""Writers: the same lines in other tools' logs, TensorBoard's and W&B's."""

import hashlib
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeAlias

from embedkit.errors import MissingDependency
from embedkit.train.monitor.record import Progress
from embedkit.train.recipe import Recipe

__all__ = ["Writer", "open_writers", "scalars"]


class Writer(Protocol):
    """Takes every line of the metrics."""

    def write(self, progress: Progress) -> None:
        """Add one line."""
        ...

    def close(self) -> None:
        """Leave everything on disk."""
        ...


def scalars(progress: Progress) -> dict[str, float]:
    """The numbers of one line by the name that other tools show: ``loss/total``, ..."""
    values: dict[str, float | None] = {
        "loss/total": progress.loss,
        **{f"loss/{name}": value for name, value in progress.parts.items()},
        "optimiser/lr": progress.lr,
        "optimiser/grad_norm": progress.grad_norm,
        "speed/images_per_s": progress.images_per_s,
        "embeddings/alignment": progress.measures.alignment,
        "embeddings/uniformity": progress.measures.uniformity,
        "embeddings/effective_rank": progress.measures.effective_rank,
        "embeddings/std": progress.measures.embedding_std,
        "embeddings/knn": progress.knn,
    }
    return {name: value for name, value in values.items() if value is not None}


class TensorBoard:
    """Event files in ``RUN/tensorboard``.

    Args:
        folder: The run folder.
        recipe: Shown as text.
        step: Steps done; what an interrupted run had written later is hidden.
    """

    def __init__(self, folder: Path, recipe: Recipe, step: int) -> None:
        _module("tensorboard", "tensorboard")
        summary = _module("torch.utils.tensorboard", "tensorboard")
        path = str(folder / "tensorboard")
        self._writer = summary.SummaryWriter(path, purge_step=step + 1 if step else None)
        if not step:
            self._writer.add_text("recipe", f"```\n{recipe.to_toml()}\n```")

    def write(self, progress: Progress) -> None:
        """Add one line."""
        for name, value in scalars(progress).items():
            self._writer.add_scalar(name, value, progress.step)

    def close(self) -> None:
        """Leave everything on disk."""
        self._writer.close()


class WandB:
    """A run of W&B in ``RUN/wandb``; ``WANDB_MODE=offline`` sends nothing.

    Args:
        folder: The run folder.
        recipe: Its configuration.
        step: Steps done.
    """

    def __init__(self, folder: Path, recipe: Recipe, step: int) -> None:
        wandb = _module("wandb", "wandb")
        # The same recipe in another folder is another run; resumed, it is the same one.
        own = hashlib.sha256(f"{recipe.digest} {folder.resolve()}".encode()).hexdigest()
        self._run = wandb.init(
            project="embedkit",
            name=folder.name,
            dir=str(folder),
            id=own[:16],
            resume="allow",
            config={**recipe.to_dict(), "resumed_at": step},
        )

    def write(self, progress: Progress) -> None:
        """Add one line."""
        self._run.log(scalars(progress), step=progress.step)

    def close(self) -> None:
        """Leave everything on disk."""
        self._run.finish()


_Opened: TypeAlias = Callable[[Path, Recipe, int], Writer]
_WRITERS: dict[str, _Opened] = {"tensorboard": TensorBoard, "wandb": WandB}


def open_writers(names: Sequence[str], folder: Path, recipe: Recipe, step: int) -> list[Writer]:
    """Open the writers of a recipe's ``run.writers``.

    Raises:
        MissingDependency: If one's package is not installed; names the extra.
    """
    return [_WRITERS[name](folder, recipe, step) for name in names]


def _module(name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependency(
            f"expected {package} for run.writers, got {error}; pip install "
            f"'embedkit[monitor]', or leave {package!r} out of run.writers"
        ) from error
