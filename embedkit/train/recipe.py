"""Recipe: the frozen value that fixes one training run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedkit.errors import InvalidInput, NotFound
from embedkit.registry import configure
from embedkit.train.recipe_text import Table, apply_override, dump_toml, parse_toml
from embedkit.train.settings import (
    DataSection,
    Named,
    OptimiserSection,
    ProjectionSection,
    RunSection,
    SamplingSection,
    ScheduleSection,
    ViewsSection,
    written,
)

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """Everything that fixes one training run, as one TOML file.

    Attributes:
        data: Training images.
        sampling: Which images are used, and which share a batch; all, shuffled by default.
        encoder: Encoder and its arguments.
        objective: What is minimised, and its arguments.
        input: Fields of ``InputSpec``; empty takes height, width and channels from the data.
        augmentation: Name of a preset, ``none``, or one table per step.
        views: Small crops and adversarial views; none by default.
        projection: Head between features and objective.
        optimiser: How gradients become steps.
        schedule: How long and how fast.
        run: Precision, averaging and records.
        expected: What the run should reach, as measured: free names.
        seed: Fixes initial weights, order of the images and augmentations.
        initial: Run folder or bundle whose encoder is trained on, with its normalisation unless
            ``encoder`` sets another; empty starts anew.
    """

    data: DataSection
    encoder: Named
    objective: Named
    input: Mapping[str, object] = field(default_factory=dict)
    augmentation: str | tuple[Mapping[str, object], ...] = "simclr"
    sampling: SamplingSection = field(default_factory=SamplingSection)
    views: ViewsSection = field(default_factory=ViewsSection)
    projection: ProjectionSection = field(default_factory=ProjectionSection)
    optimiser: OptimiserSection = field(default_factory=OptimiserSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    run: RunSection = field(default_factory=RunSection)
    expected: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    initial: str = ""

    def __post_init__(self) -> None:
        """Check the seed; the sections check themselves."""
        if self.seed < 0:
            raise InvalidInput(f"expected seed to be at least 0, got {self.seed}")

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> "Recipe":
        """Read a TOML file.

        Args:
            path: The file.
            overrides: ``key=value`` settings that replace what the file says.

        Raises:
            NotFound: If there is no such file.
            InvalidInput: If it is no TOML in UTF-8, or a key or value is wrong.
        """
        if not Path(path).is_file():
            raise NotFound(f"expected a recipe file, got {str(path)!r}, which does not exist")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"expected UTF-8 text in {path}, got: {error}") from error
        table = parse_toml(text, str(path))
        for override in overrides:
            apply_override(table, override)
        return cls.from_dict(table)

    @classmethod
    def from_dict(cls, table: Mapping[str, object]) -> "Recipe":
        """Read a nested table.

        Raises:
            InvalidInput: If a key is unknown or missing, or a value is wrong.
        """
        values = {key: _section(key, value) for key, value in table.items()}
        return configure(cls, values, noun="a recipe")

    def to_dict(self) -> Table:
        """The nested table that ``from_dict`` takes; sections left empty are left out."""
        table: Table = {"seed": self.seed}
        if isinstance(self.augmentation, str):
            table["augmentation"] = self.augmentation
        if self.initial:
            table["initial"] = self.initial
        for name in ("data", "input", "encoder", "objective"):
            value = getattr(self, name)
            if isinstance(value, Named):
                table[name] = {"name": value.name, **value.arguments}
            elif value:
                table[name] = dict(value) if isinstance(value, Mapping) else written(value)
        if not isinstance(self.augmentation, str):
            table["augmentation"] = [dict(step) for step in self.augmentation]
        for name in ("sampling", "views", "projection", "optimiser", "schedule", "run"):
            # Sections that older recipes do not have are empty where they are all default.
            if values := written(getattr(self, name)):
                table[name] = values
        if self.expected:
            table["expected"] = dict(self.expected)
        return table

    def to_toml(self) -> str:
        """The whole recipe; of what later versions added, only what is not the default."""
        return dump_toml(self.to_dict())

    @property
    def digest(self) -> str:
        """``sha256:...`` of the text that ``to_toml`` gives."""
        return "sha256:" + hashlib.sha256(self.to_toml().encode()).hexdigest()


_SECTIONS: dict[str, type] = {
    "data": DataSection,
    "sampling": SamplingSection,
    "views": ViewsSection,
    "projection": ProjectionSection,
    "optimiser": OptimiserSection,
    "schedule": ScheduleSection,
    "run": RunSection,
}


def _section(key: str, value: object) -> object:
    """One value of the top-level table as the field of ``Recipe`` holds it."""
    if key in ("encoder", "objective"):
        return _named(value, key)
    if key == "augmentation":
        return _augmentation(value)
    if key not in _SECTIONS:
        return value
    if not isinstance(value, Mapping):
        raise InvalidInput(f"expected [{key}] to be a table, got {value!r}")
    return configure(_SECTIONS[key], value, noun=f"[{key}]")


def _named(value: object, where: str) -> Named:
    arguments = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise InvalidInput(f"expected [{where}] to have a name, got {value!r}")
    return Named(name, arguments)


def _augmentation(value: object) -> str | tuple[Mapping[str, object], ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(step, Mapping) for step in value):
        return tuple(dict(step) for step in value)
    raise InvalidInput(
        f"expected augmentation to be a preset's name or [[augmentation]] tables, got {value!r}"
    )
