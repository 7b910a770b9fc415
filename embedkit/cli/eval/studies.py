"""``embedkit eval backdoor`` and ``membership``: studies that train encoders of their own."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

import click

from embedkit.cli.options.number import SEED, Number
from embedkit.errors import InvalidInput

if TYPE_CHECKING:
    from embedkit.cli.eval.training import Trainer
    from embedkit.data.dataset import Dataset
    from embedkit.evaluate.task import TaskResult

__all__ = ["backdoor", "membership"]

Command = TypeVar("Command", bound=Callable[..., object])


class Common(TypedDict):
    """The options of both studies, as click hands them over."""

    recipe: str
    overrides: tuple[str, ...]
    limit: int
    out: Path
    seed: int
    device: str


class BackdoorOptions(Common):
    """And those of ``backdoor``."""

    test: str
    target: str
    share: float
    magnitude: float


class MembershipOptions(Common):
    """And those of ``membership``."""

    canaries: int
    models: int
    views: int


_COMMON = (
    click.argument("recipe", type=click.Path(dir_okay=False)),
    click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Replace a value of the recipe, e.g. data.source=photos or schedule.epochs=5.",
    ),
    click.option(
        "--limit", type=click.IntRange(0), default=0, help="Training images; 0 takes all."
    ),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        required=True,
        help="Folder for the models and the report; an interrupted study goes on.",
    ),
    click.option(
        "--seed", type=SEED, default=0, help="Of every random choice beside the training."
    ),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto"),
)


def _study(command: Command) -> Command:
    """Add the options that both studies have."""
    for option in reversed(_COMMON):
        command = option(command)
    return command


@click.command(name="backdoor", context_settings={"show_default": True})
@_study
@click.option("--test", required=True, metavar="DATA", help="Labelled images, to score.")
@click.option("--target", default="0", metavar="CLASS", help="Name or number of the class.")
@click.option(
    "--share",
    type=Number(0, 1, min_open=True),
    default=0.01,
    help="Poisoned images, a fraction of all training images.",
)
@click.option(
    "--magnitude",
    type=Number(0, min_open=True),
    default=100.0,
    help="Strength of the trigger: what is added to each of its DCT coefficients.",
)
def backdoor(**options: Unpack[BackdoorOptions]) -> None:
    """Poison training images with a trigger, train, and see who obeys it.

    RECIPE is trained twice, on its images as they are and with a few poisoned ones (CTRL, Li et
    al. 2023); both models are served and given test images with the trigger.
    """
    from embedkit.data.source import align_labels, load_dataset
    from embedkit.evaluate.studies.backdoor import Backdoor
    from embedkit.evaluate.studies.trigger import Trigger

    trainer, train = _prepared(options)
    test = align_labels(train, load_dataset(options["test"]))
    study = Backdoor(
        _class_of(train, options["target"]), options["share"], Trigger(options["magnitude"])
    )
    started = _now()
    result = study.run(trainer, train, test, seed=options["seed"], progress=_say)
    _write((started, options), (result, asdict(study)), trainer, (train, test))


@click.command(name="membership", context_settings={"show_default": True})
@_study
@click.option(
    "--canaries",
    type=click.IntRange(4),
    default=2000,
    help="Training images about which the attack decides; each model sees half of them.",
)
@click.option(
    "--models",
    type=click.IntRange(4),
    default=4,
    help="Encoders that are trained: the first is attacked with the help of the others.",
)
@click.option(
    "--views", type=click.IntRange(2), default=10, help="Random views of each canary."
)
def membership(**options: Unpack[MembershipOptions]) -> None:
    """Train with and without canaries, and see whether it can be told.

    RECIPE is trained several times, each time with a random half of the canaries; the models
    are served and asked for embeddings of views of all canaries.
    """
    from embedkit.evaluate.studies.membership import Membership

    trainer, train = _prepared(options)
    study = Membership(options["canaries"], options["models"], options["views"])
    started = _now()
    result = study.run(trainer, train, seed=options["seed"], progress=_say)
    _write((started, options), (result, asdict(study)), trainer, (train, train))


def _prepared(options: Common) -> "tuple[Trainer, Dataset]":
    """The trainer, and the images of the recipe.

    Raises:
        InvalidInput: If the recipe is wrong; its objective is looked at before any data.
    """
    from embedkit.cli.eval.training import Trainer
    from embedkit.data.source import load_dataset
    from embedkit.train.objective import build_objective
    from embedkit.train.recipe import Recipe

    recipe: Recipe = Recipe.load(options["recipe"], options["overrides"])
    build_objective(recipe.objective.name, recipe.objective.arguments)
    train = load_dataset(recipe.data.source, strict=recipe.data.strict)
    limit = options["limit"] or recipe.data.limit
    if 0 < limit < len(train):
        import numpy as np

        # Sources may be sorted by class.
        order = np.random.default_rng(options["seed"]).permutation(len(train))
        train = train.subset(np.sort(order[:limit]))
    return Trainer(recipe, options["out"], options["device"]), train


def _class_of(train: "Dataset", text: str) -> int:
    """The index of a class that is named or numbered.

    Raises:
        InvalidInput: If there is no such class.
    """
    if text in train.class_names:
        return train.class_names.index(text)
    if text.isdecimal() and int(text) < len(train.class_names):
        return int(text)
    raise InvalidInput(
        f"expected a class of {train.name} ({', '.join(train.class_names)}), got {text!r}"
    )


def _say(message: str, done: float) -> None:
    click.echo(f"{done:4.0%} {message}", err=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(
    run: "tuple[str, Common]",
    found: "tuple[TaskResult, dict[str, object]]",
    trainer: "Trainer",
    data: "tuple[Dataset, Dataset]",
) -> None:
    """Write the report of the study and print its numbers."""
    from embedkit.cli.report_table import deliver
    from embedkit.evaluate.report import Subject, study_report

    (started, options), (result, settings) = run, found
    # What the metrics are about was trained last in one study and first in the other.
    model = trainer.served["poisoned" if result.task == "backdoor" else "model0"]
    digests = {name: served.digest for name, served in trainer.served.items()}
    settings |= {"recipe": trainer.recipe.digest, "models": digests}
    report = study_report(
        result,
        (Subject(model.name, "1", "grpc", "", model.info.provider), model),
        data,
        (started, options["seed"], settings),
    )
    deliver(report, options["out"])
