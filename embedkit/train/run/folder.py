"""RunFolder: what a training run leaves behind, and how it is opened again."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save

from embedkit.bundle import Head
from embedkit.errors import AlreadyExists, BundleDamaged, InvalidInput
from embedkit.train.images import TrainingImages
from embedkit.train.learner import Learner, State
from embedkit.train.objective import Classifying, Objective
from embedkit.train.recipe import Recipe
from embedkit.train.run.checkpoint import read_checkpoint, write_checkpoint, write_file
from embedkit.train.run.metrics import cut_metrics, keep_metrics, read_metrics

__all__ = ["RunFolder", "RunResult"]


@dataclass(frozen=True)
class RunResult:
    """What a finished run says of itself: the content of ``run.json``.

    Attributes:
        recipe_digest: ``sha256:...`` of ``recipe.toml``.
        data_digest: Content digest of the training images.
        objective: Name of the objective.
        class_names: Of the data; empty without labels.
        images: Number of training images.
        skipped: Number of files that could not be read.
        steps: Steps done.
        seconds: Training time over all starts of the run.
        images_per_s: Images per second over all of it; all views count as one.
        loss: Of the last step.
        measures: Geometry of the last batch's embeddings; see ``Measures``.
        warnings: Everything that looked wrong.
        device: Where it ran, with the number of CPU threads.
        versions: Of the packages that the weights depend on.
        embedder_digests: Of the finished models that it learned from; None where an earlier
            version trained it, which wrote none.
        path: The run folder; not written.
    """

    recipe_digest: str
    data_digest: str
    objective: str
    class_names: tuple[str, ...]
    images: int
    skipped: int
    steps: int
    seconds: float
    images_per_s: float
    loss: float
    measures: dict[str, float | int | None]
    warnings: tuple[str, ...] = ()
    device: str = "cpu"
    versions: dict[str, str] = field(default_factory=dict)
    embedder_digests: tuple[str, ...] | None = None
    path: Path = Path()


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Attributes:
        path: The folder.
        recipe: What is run in it.
    """

    path: Path
    recipe: Recipe

    @classmethod
    def open(cls, path: str | Path, recipe: Recipe, *, resume: bool) -> "RunFolder":
        """Create the folder and write ``recipe.toml``, or open it to go on.

        Raises:
            AlreadyExists: If a run is there and ``resume`` is not set.
            InvalidInput: If the run there has another recipe.
        """
        folder = cls(Path(path), recipe)
        stored = folder.path / "recipe.toml"
        if stored.exists() and not resume and folder._has_begun():
            raise AlreadyExists(
                f"expected an empty folder for the run, got one with a run in it: {path}; "
                "continue it with --resume or choose another --out"
            )
        is_other = stored.exists() and stored.read_text(encoding="utf-8") != recipe.to_toml()
        if is_other and folder._has_begun():
            raise InvalidInput(
                f"expected the recipe that the run in {path} was started with, got another; "
                f"use {stored} to continue it, or choose another --out"
            )
        folder.path.mkdir(parents=True, exist_ok=True)
        # Of an attempt before this one; see ``divergence``.
        (folder.path / "diverged.npz").unlink(missing_ok=True)
        write_file(stored, recipe.to_toml().encode())
        return folder

    def _has_begun(self) -> bool:
        """Whether a step was taken; a run that failed earlier leaves only its recipe."""
        if self.checkpoint.exists() or (self.path / "run.json").exists():
            return True
        return self.metrics.exists() and self.metrics.stat().st_size > 0

    @property
    def files(self) -> int:
        """How many of the files that a run is opened by are there."""
        names = ("recipe.toml", "checkpoint.pt", "run.json")
        return sum((self.path / name).exists() for name in names)

    @property
    def metrics(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Everything that is needed to go on."""
        return self.path / "checkpoint.pt"

    def result(self) -> RunResult | None:
        """What the run says of itself if it is finished.

        Raises:
            BundleDamaged: If ``run.json`` is not what was written.
        """
        path = self.path / "run.json"
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["class_names"] = tuple(values["class_names"])
            values["warnings"] = tuple(values["warnings"])
            if values.get("embedder_digests") is not None:
                values["embedder_digests"] = tuple(values["embedder_digests"])
            return RunResult(**values, path=self.path)
        except (ValueError, KeyError, TypeError) as error:
            raise BundleDamaged(
                f"expected the result of a run in {path}, got {error}"
            ) from error

    def result_on(self, images: TrainingImages) -> RunResult | None:
        """What the run says of itself if it is finished, and learned from these images.

        Raises:
            InvalidInput: If the data, or a model that is learned from, changed since.
            BundleDamaged: If ``run.json`` is not what was written.
        """
        result = self.result()
        if result is not None:
            _check_same(images, result.data_digest, result.embedder_digests)
        return result

    def finished(self) -> RunResult:
        """What the run says of itself.

        Raises:
            BundleDamaged: If it has not finished, or ``run.json`` is not what was written.
        """
        result = self.result()
        if result is None:
            raise BundleDamaged(f"expected a finished run in {self.path}, got none")
        return result

    def last_metrics(self) -> dict[str, float | int | None]:
        """The numbers of the last line of the metrics.

        Raises:
            BundleDamaged: If there is none.
        """
        lines = read_metrics(self.metrics)
        if not lines:
            raise BundleDamaged(
                f"expected the metrics of the run in {self.metrics}, got none; delete "
                f"{self.checkpoint} to start anew"
            )
        return {k: v for k, v in lines[-1].items() if v is None or isinstance(v, int | float)}

    def save(self, state: State, images: TrainingImages, warnings: list[str]) -> None:
        """Write the checkpoint; the metrics so far are part of it by their length."""
        state.metrics_bytes = keep_metrics(self.metrics)
        digests = {
            "recipe_digest": self.recipe.digest,
            "data_digest": images.digest,
            "embedder_digests": list(images.embedder_digests),
        }
        seen = {"warnings": list(warnings), "unreadable": sorted(images.unreadable)}
        values = {**digests, **seen, **state.to_dict()}
        write_checkpoint(self.checkpoint, values)

    def restore(self, state: State, images: TrainingImages) -> list[str]:
        """Load the checkpoint into ``state`` if there is one; return its warnings.

        Metrics written after the checkpoint are cut off: their steps are done again. So is a
        line that is not whole, as a full disk may leave it.

        Raises:
            InvalidInput: If the data, or a model that is learned from, changed since the
                run was started.
            BundleDamaged: If the checkpoint cannot be read.
        """
        if not self.checkpoint.exists():
            self.metrics.unlink(missing_ok=True)
            return []
        values = read_checkpoint(self.checkpoint)
        _check_same(images, values.get("data_digest"), values.get("embedder_digests", []))
        try:
            state.load_dict(values)
            warnings = values["warnings"]
            unreadable = values.get("unreadable")
            images.unreadable.update(unreadable if isinstance(unreadable, list) else ())
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise BundleDamaged(
                f"expected a checkpoint of this recipe in {self.checkpoint}, got {error}; "
                "delete it to start anew"
            ) from error
        cut_metrics(self.metrics, state.metrics_bytes)
        return [str(warning) for warning in warnings] if isinstance(warnings, list) else []

    def finish(
        self, learner: Learner, objective: Objective, images: TrainingImages, result: RunResult
    ) -> RunResult:
        """Write weights, encoder, classifier and ``run.json``, the last one last."""
        weights = {
            name: value.detach().cpu().contiguous()
            for name, value in learner.encoder.state_dict().items()
        }
        config = json.dumps(learner.encoder.config, indent=1, sort_keys=True) + "\n"
        write_file(self.path / "encoder.safetensors", save(weights))
        write_file(self.path / "encoder.json", config.encode())
        if isinstance(objective, Classifying) and learner.module is not None:
            linear = objective.classifier(learner.module)
            head = _head(linear, images.class_names)
            write_file(self.path / "head.npz", head.to_bytes())
        values = {k: v for k, v in asdict(result).items() if k != "path"}
        write_file(self.path / "run.json", (json.dumps(values, indent=1) + "\n").encode())
        return replace(result, path=self.path)


def _check_same(images: TrainingImages, trained_on: object, learned_from: object) -> None:
    """Refuse to go on from other data or other models; None says nothing of the models."""
    if trained_on != images.digest:
        raise InvalidInput(
            f"expected the data that the run was started with, {trained_on}, got "
            f"{images.digest}; choose another --out to train on it"
        )
    learning = list(images.embedder_digests)
    known = list(learned_from) if isinstance(learned_from, Sequence) else learned_from
    if known is not None and known != learning:
        raise InvalidInput(
            f"expected the models that the run was started with, {known}, got "
            f"{learning}; choose another --out to learn from them"
        )


def versions() -> dict[str, str]:
    """Versions of the packages that the weights depend on."""
    return {name: version(name) for name in ("embedkit", "torch", "numpy")}


def _head(linear: torch.nn.Linear, class_names: tuple[str, ...]) -> Head:
    weight, bias = linear.weight.detach().cpu(), linear.bias.detach().cpu()
    return Head(weight.float().numpy(), bias.float().numpy(), class_names)
