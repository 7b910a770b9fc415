"""Does a recipe still reach what it states? Trained, exported, served, measured, compared.

    python -m tools.reproduce RECIPE [--set data.source=FILE.npz] [--test DATA] [--out FOLDER]

Every metric in the recipe's ``[expected]`` section is measured through gRPC on the training
images as the bank and the test split of the same data. A metric ``m`` agrees if it lies in
``"m.interval"``; without one, if its own 95 % interval holds the stated value. Ends with 0 if
all agree, 1 if one does not, 2 if nothing is stated.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np

import embedkit
from embedkit.data.dataset import Dataset
from embedkit.data.source import load_dataset
from embedkit.errors import EmbedkitError, InvalidInput
from embedkit.evaluate.run import evaluate
from embedkit.evaluate.statistics import Metric
from embedkit.export.run import export_run
from embedkit.runtime.local import load
from embedkit.serve.server import running_server
from embedkit.train.loop import train
from embedkit.train.recipe import Recipe
from tools.board.work import Alone

_NAME, _INTERVAL = "reproduced", ".interval"


@dataclass(frozen=True)
class Claim:
    """One metric that a recipe states.

    Attributes:
        metric: ``<task>.<metric>``.
        value: As stated.
        interval: In which it should lie, or None.
    """

    metric: str
    value: float
    interval: tuple[float, float] | None = None

    def agrees(self, found: Metric) -> bool:
        """Whether what was measured is what was stated."""
        if self.interval is not None:
            return self.interval[0] <= found.value <= self.interval[1]
        low, high = found.ci or (found.value, found.value)
        return low <= self.value <= high

    def verdict(self, found: Metric) -> str:
        """One line for a person."""
        word = "agrees" if self.agrees(found) else "DIFFERS"
        where = "" if self.interval is None else f" in [{self.interval[0]}, {self.interval[1]}]"
        return f"{self.metric}: {found.value:.4f}, expected {self.value}{where}: {word}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recipe and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="K=V")
    parser.add_argument("--test", metavar="DATA", help="by default the test split of the data")
    parser.add_argument(
        "--out", type=Path, help="folder of the run; by default a temporary one"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args(arguments)
    try:
        recipe = Recipe.load(options.recipe, options.overrides)
        stated = claims(recipe.expected)
        if not stated:
            print(f"{options.recipe} states no score to compare with", file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
            found = _measure(recipe, options, options.out or Path(folder), stated)
    except EmbedkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for claim in stated:
        print(claim.verdict(found[claim.metric]))
    return int(not all(claim.agrees(found[claim.metric]) for claim in stated))


def claims(expected: Mapping[str, object]) -> list[Claim]:
    """The metrics of an ``[expected]`` section; names without a dot are for readers.

    Raises:
        InvalidInput: If an entry is neither a metric's value nor the interval of one.
    """
    found = []
    for name, value in expected.items():
        metric = name.removesuffix(_INTERVAL)
        if isinstance(value, Mapping):
            raise InvalidInput(
                f'expected names in quotes in [expected], like "knn.top1" = 0.9, got a table '
                f"{name}"
            )
        if name != metric and metric not in expected:
            raise InvalidInput(f"expected {metric} beside {name} in [expected], got none")
        if "." not in name or name != metric:
            continue
        if not _is_number(value):
            raise InvalidInput(
                f"expected a number as {name} in [expected], got {value!r}; an interval is "
                f"called <metric>{_INTERVAL}"
            )
        found.append(Claim(name, float(value), _ends(name, expected)))
    return found


def _ends(name: str, expected: Mapping[str, object]) -> tuple[float, float] | None:
    """The interval of a metric as two numbers, the lower one first; None where it has none."""
    key = f"{name}{_INTERVAL}"
    if key not in expected:
        return None
    ends = expected[key]
    if isinstance(ends, list | tuple) and len(ends) == 2 and all(map(_is_number, ends)):
        low, high = map(float, ends)
        if low <= high:
            return low, high
    raise InvalidInput(f"expected [low, high] as {key} in [expected], got {ends!r}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _measure(
    recipe: Recipe, options: argparse.Namespace, out: Path, stated: Sequence[Claim]
) -> dict[str, Metric]:
    """Every stated metric, through a server."""
    bank, test = _images(recipe, options.test)
    train(recipe, out / "run", resume=True, device=options.device, load_bundle=load)
    bundle = export_run(out / "run", name=_NAME, models=out / "models")
    with (
        running_server(models=out / "models", data_dir=out / "var") as address,
        embedkit.connect(address) as client,
    ):
        context = Alone(client.model(_NAME), bank, test, bundle=bundle)
        report = evaluate(context, tuple(dict.fromkeys(c.metric.split(".")[0] for c in stated)))
    found = {
        f"{result.task}.{name}": metric
        for result in report.results
        for name, metric in result.metrics.items()
    }
    missing = [claim.metric for claim in stated if claim.metric not in found]
    if missing:
        raise EmbedkitError(f"expected {', '.join(missing)} in the report, got {list(found)}")
    return found


def _images(recipe: Recipe, test: str | None) -> tuple[Dataset, Dataset]:
    """The images trained on, and those to score."""
    source = recipe.data.source
    bank = load_dataset(source)
    if recipe.data.limit:
        bank = bank.subset(np.arange(min(recipe.data.limit, len(bank))))
    return bank, load_dataset(test or f"{source}:test")


if __name__ == "__main__":
    raise SystemExit(main())
