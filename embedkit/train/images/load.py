"""The training images: in memory as uint8, in an order that depends on seed and epoch alone."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from embedkit.data.source import Dataset, load_dataset
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec
from embedkit.registry import configure
from embedkit.train.batch import ImageIndices, Targets
from embedkit.train.images.lazy import LazyDataset, open_lazily
from embedkit.train.images.order import Groups, ImageOrder, seed_of
from embedkit.train.images.stream import Stream
from embedkit.train.objective import Objective
from embedkit.train.recipe import Recipe
from embedkit.train.settings import DataSection

__all__ = ["TrainingImages", "load_images"]

_MEASURED = 4096
"""Images of a stream that mean and deviation are taken of, evenly spaced."""


@dataclass(frozen=True)
class TrainingImages:
    """What a run is trained on.

    Attributes:
        images: (n, h, w, c) uint8 on the training device, or read as they are needed.
        labels: (n,) int64 on the same device if the objective needs them, or None.
        spec: Size and channels of the images.
        class_names: One per class; empty without labels.
        digest: Content digest of the data set.
        mean: Per channel, in [0, 1] units.
        std: Per channel, in [0, 1] units, above 0.
        left_out: Number of files that were left out because they could not be read.
        embeddings: By each bundle that the objective names, (n, d) float32 on that device.
        embedder_digests: Of the same bundles.
        classes: (n,) int64 wherever the data has labels, for measures alone, or None.
    """

    images: torch.Tensor | Stream
    labels: Targets | None
    spec: InputSpec
    class_names: tuple[str, ...]
    digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    left_out: int = 0
    embeddings: tuple[torch.Tensor, ...] = ()
    embedder_digests: tuple[str, ...] = ()
    classes: Targets | None = None
    _order: dict[tuple[int, int], ImageOrder] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def skipped(self) -> int:
        """Number of files that could not be read, of a stream so far."""
        return self.left_out + len(self.unreadable)

    @property
    def unreadable(self) -> set[int]:
        """Which images of a stream could not be read so far; more may be added."""
        return self.images.unreadable if isinstance(self.images, Stream) else set()

    def indices(
        self, step: int, *, batch_size: int, seed: int, groups: Groups | None = None
    ) -> ImageIndices:
        """Which images make up the batch of one step.

        Every epoch is a new permutation of all images, cut into whole batches; it depends on
        nothing but the arguments, so a resumed run sees the same batches. An image of a stream
        that cannot be read is there as another one of its batch.

        Args:
            step: 0-based over the whole run.
            batch_size: At most the number of images.
            seed: Of the run.
            groups: Clusters that say which images share a batch; None draws them freely.
        """
        epoch, position = divmod(step, len(self) // batch_size)
        key = (epoch, -1 if groups is None else groups.step)
        if key not in self._order:
            generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
            self._order.clear()
            self._order[key] = (
                torch.randperm(len(self), generator=generator)
                if groups is None
                else groups.order(batch_size, generator)
            )
        order, start = self._order[key], position * batch_size
        batch = order[start : start + batch_size]
        if isinstance(self.images, Stream):
            ahead = order[start : start + self.images.room(batch_size) * batch_size]
            whole = len(ahead) // batch_size * batch_size
            # The last, partial batch of an epoch is never asked for.
            self.images.expect(torch.split(ahead[:whole], batch_size))
            batch = self.images.readable(batch)
        return batch.to(self.images.device)

    def part(self, rows: torch.Tensor, digest: str) -> "TrainingImages":
        """Some of the images.

        Args:
            rows: (m,) positions.
            digest: Of the part.
        """
        rows = rows.to(self.images.device)
        images = self.images
        return replace(
            self,
            images=images.part(rows) if isinstance(images, Stream) else images[rows],
            labels=None if self.labels is None else self.labels[rows],
            classes=None if self.classes is None else self.classes[rows],
            digest=digest,
            _order={},
        )


def load_images(recipe: Recipe, objective: Objective, device: torch.device) -> TrainingImages:
    """Load, convert and check the data of a recipe.

    Args:
        recipe: Names the data and the input size.
        objective: May need labels.
        device: Where the images are kept.

    Raises:
        InvalidInput: If the images do not fit the recipe or the objective; says what to change.
        NotFound: If there is no such data.
    """
    dataset = _open(recipe.data)
    batch_size = recipe.schedule.batch_size
    if len(dataset) < batch_size:
        raise InvalidInput(
            f"expected at least {batch_size} images for a batch, got {len(dataset)} in "
            f"{recipe.data.source!r}; lower schedule.batch_size"
        )
    labels = _labels(dataset, recipe) if objective.needs & {"labels", "targets"} else None
    spec = _spec(dataset, recipe)
    images: torch.Tensor | Stream
    if isinstance(dataset, LazyDataset):
        megabytes, strict = recipe.data.stream_mb, recipe.data.strict
        images = Stream(dataset, spec, device, megabytes=megabytes, strict=strict)
        some = torch.linspace(0, len(dataset) - 1, min(len(dataset), _MEASURED)).round().long()
        mean, std = _statistics(images[some].cpu().numpy())
    else:
        pixels = dataset.arrays(spec)
        images, (mean, std) = torch.from_numpy(pixels).to(device), _statistics(pixels)
    return TrainingImages(
        images,
        None if labels is None else labels.to(device),
        spec,
        dataset.class_names,
        dataset.digest,
        mean,
        std,
        0 if isinstance(dataset, LazyDataset) else len(dataset.skipped),
        classes=_classes(dataset, device),
    )


def _open(settings: DataSection) -> Dataset | LazyDataset:
    """The data, whole or to be read later, as far as it is used."""
    if settings.stream:
        lazy = open_lazily(settings.source)
        return lazy.first(settings.limit) if 0 < settings.limit < len(lazy) else lazy
    dataset = load_dataset(settings.source, strict=settings.strict)
    if settings.limit:
        dataset = dataset.subset(np.arange(min(settings.limit, len(dataset))))
    return dataset


def _classes(dataset: Dataset | LazyDataset, device: torch.device) -> Targets | None:
    if dataset.labels is None:
        return None
    return torch.from_numpy(dataset.labels.astype(np.int64)).to(device)


def _labels(dataset: Dataset | LazyDataset, recipe: Recipe) -> Targets:
    name, source = recipe.objective.name, recipe.data.source
    if dataset.labels is None:
        raise InvalidInput(
            f"expected labels for the objective {name!r}, got data without any: {source!r}; "
            "put the images into one folder per class, or use an objective without labels "
            "such as 'simclr'"
        )
    if len(np.unique(dataset.labels)) < 2:
        raise InvalidInput(
            f"expected at least 2 classes for the objective {name!r}, got one in {source!r}; "
            "add images of another class, or use an objective without labels such as 'simclr'"
        )
    return torch.from_numpy(dataset.labels.astype(np.int64))


def _spec(dataset: Dataset | LazyDataset, recipe: Recipe) -> InputSpec:
    """The recipe's input; what it leaves open comes from the images."""
    values = dict(recipe.input)
    size = ("height", "width", "channels")
    if dataset.image_shape is not None:
        values = dict(zip(size, dataset.image_shape, strict=True)) | values
    missing = [key for key in size if key not in values]
    if missing:
        raise InvalidInput(
            f"expected [input] with {', '.join(missing)}, got none, and the images of "
            f"{recipe.data.source!r} differ in size; set for example input.height=32 "
            "input.width=32 input.channels=3"
        )
    return configure(InputSpec, values, noun="[input]")


def _statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (n, h, w, c) uint8, in [0, 1] units.

    Counts of the 256 levels give both exactly, without a float copy of all images.
    """
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].reshape(-1), minlength=256)
        mean = float(counts @ levels / counts.sum())
        variance = float(counts @ np.square(levels - mean) / counts.sum())
        means.append(round(mean, 6))
        # Images of one flat colour would be divided by zero.
        deviations.append(round(max(variance**0.5, 1e-3), 6))
    return tuple(means), tuple(deviations)
