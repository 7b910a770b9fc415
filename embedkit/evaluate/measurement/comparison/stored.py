"""A report that was written before, as it is read again."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput, NotFound
from embedkit.evaluate.statistics import Interval

__all__ = ["Arrays", "Stored", "StoredMetric", "are_the_same", "check_same", "read_report"]

Arrays = Mapping[str, npt.NDArray[np.generic]]

_MOST_REPORT_BYTES = 256 << 20
_DAMAGED = (OSError, ValueError, EOFError, KeyError, TypeError, BadZipFile, zlib.error)


@dataclass(frozen=True)
class StoredMetric:
    """What comparisons need of a metric that has a value.

    Attributes:
        value: The point estimate.
        ci: Its interval, if it has one.
        higher_is_better: Whether a larger value is the better one.
    """

    value: float
    ci: Interval | None
    higher_is_better: bool


@dataclass(frozen=True)
class Stored:
    """A report that was written before.

    Attributes:
        path: The ``report.json``.
        values: Its content.
    """

    path: Path
    values: Mapping[str, object]

    @property
    def results(self) -> dict[str, Mapping[str, object]]:
        """The entry of each task."""
        return {str(entry["task"]): entry for entry in _list(self.values["results"])}

    @property
    def metrics(self) -> dict[str, StoredMetric]:
        """Each metric that has a value, by ``<task>.<metric>``."""
        return {
            f"{task}.{name}": metric
            for task, entry in self.results.items()
            for name, values in _mapping(entry["metrics"]).items()
            if (metric := _metric(_mapping(values))) is not None
        }

    @property
    def run(self) -> Mapping[str, object]:
        """When it ran and with which settings; empty if the report does not say."""
        return _mapping(self.values.get("run", {}))

    @property
    def options(self) -> Mapping[str, object]:
        """Sizes and limits of the run; empty if the report does not say."""
        return _mapping(self.run.get("options", {}))

    def digest(self, role: str) -> object:
        """Digest of the ``train`` or ``test`` images; None if the report does not say."""
        return self._data(role).get("digest")

    @property
    def novel(self) -> dict[str, object]:
        """Digest of every OOD set by its name."""
        return _digests(_mapping(self.values["data"])["ood"])

    @property
    def shifted(self) -> dict[str, object]:
        """Digest of every shifted set by its name; none if the report does not say."""
        return _digests(self._data("shifted"))

    def count(self, role: str) -> object:
        """How many ``train`` or ``test`` images there are; None if the report does not say."""
        return self._data(role).get("n")

    def items(self, task: str) -> dict[str, npt.NDArray[np.generic]]:
        """The per-item arrays of a task; none if it has none.

        Raises:
            InvalidInput: If the file is not there or holds anything but plain arrays.
        """
        name = _mapping(self.values["items"]).get(task)
        if name is None:
            return {}
        path = self.path.parent / str(name)
        if path.parent.parent.resolve() != self.path.parent.resolve():
            raise InvalidInput(f"expected items beside {self.path}, got {name!r}")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except _DAMAGED as error:
            raise InvalidInput(
                f"expected arrays of {task!r} in {path}, got {error}; evaluate again if the "
                "file is damaged"
            ) from error

    def _data(self, role: str) -> Mapping[str, object]:
        return _mapping(_mapping(self.values["data"]).get(role, {}))


def read_report(path: str | Path) -> Stored:
    """Read ``report.json``, or that of a folder.

    Raises:
        NotFound: If there is none.
        InvalidInput: If it is not a report.
    """
    file = Path(path)
    file = file / "report.json" if file.is_dir() else file
    if not file.is_file():
        raise NotFound(f"expected a report at {file}, got no such file")
    if file.stat().st_size > _MOST_REPORT_BYTES:
        raise InvalidInput(f"expected a report of at most {_MOST_REPORT_BYTES} bytes at {file}")
    try:
        stored = Stored(file, json.loads(file.read_text(encoding="utf-8")))
        if stored.digest("test") is None:
            raise KeyError("digest of the test images")
        _ = stored.metrics, stored.options, stored.novel, stored.shifted
        _ = _mapping(stored.values["items"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"expected a report of embedkit eval at {file}, got {error!r}"
        ) from error
    return stored


def are_the_same(first: Stored, second: Stored) -> bool:
    """Whether both reports are about one model and found the same, so one may be the other."""
    return first.path.resolve() == second.path.resolve() or (
        first.values.get("model") == second.values.get("model")
        and first.values["results"] == second.values["results"]
    )


def check_same(first: Stored, second: Stored) -> None:
    """Refuse reports over other test images.

    Raises:
        InvalidInput: If they are.
    """
    if first.digest("test") != second.digest("test"):
        raise InvalidInput(
            f"expected two reports over the same test images, got {first.path} over "
            f"{first.digest('test')} and {second.path} over {second.digest('test')}"
        )


def _metric(values: Mapping[str, object]) -> StoredMetric | None:
    value, ci = values["value"], values["ci"]
    if not isinstance(value, int | float):
        return None
    ends = [float(v) for v in ci if v is not None] if isinstance(ci, list) else []
    interval = (ends[0], ends[1]) if len(ends) == 2 else None
    return StoredMetric(float(value), interval, values.get("higher_is_better") is not False)


def _digests(sets: object) -> dict[str, object]:
    return {name: _mapping(entry)["digest"] for name, entry in _mapping(sets).items()}


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a table, got {type(value).__name__}")
    return value


def _list(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return [_mapping(entry) for entry in value]
