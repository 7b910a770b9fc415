"""Fakes for tests, of embedkit and of programs that use it: no training, no server, no files.

``SyntheticImages`` makes images whose class can be read from their brightness,
``PerfectEmbedder`` reads it, and ``ConstantEmbedder`` knows nothing. Between them lie all
encoders: whatever measures an encoder should find 1 for the one and chance for the other.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.errors import InvalidInput
from embedkit.preprocess import InputSpec, prepare
from embedkit.types import Embeddings, EncodedImages, Images, ImageScores, Usage

__all__ = ["ConstantEmbedder", "PerfectEmbedder", "SyntheticImages"]

_NOISE = 8
_STEP_OF_NOVEL_IMAGES = 160


@dataclass(frozen=True)
class SyntheticImages:
    """A generator of labelled images.

    A class is a mean grey level. Novel images have a bright and a dark half instead.

    Attributes:
        classes: 2 to 10; their grey levels are at least 20 apart.
        height: Pixels, at least 2.
        width: Pixels, at least 2.
        channels: 1 or 3.

    Example:
        >>> from embedkit.testing import SyntheticImages
        >>> SyntheticImages(classes=3).dataset(6).labels
        array([0, 1, 2, 0, 1, 2])
    """

    classes: int = 4
    height: int = 8
    width: int = 8
    channels: int = 1

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= 10 or min(self.height, self.width) < 2:
            raise InvalidInput(
                "expected 2 to 10 classes and at least 2 x 2 pixels, "
                f"got {self.classes} and {self.height} x {self.width}"
            )

    @property
    def spec(self) -> InputSpec:
        """The input of a model for these images."""
        return InputSpec(self.height, self.width, self.channels)

    @property
    def levels(self) -> npt.NDArray[np.float64]:
        """Mean grey level of each class, (c,)."""
        return 28 + 200 * (np.arange(self.classes) + 0.5) / self.classes

    def dataset(self, n: int, *, seed: int = 0, name: str = "synthetic") -> Dataset:
        """Return ``n`` labelled images, the classes in turn."""
        labels = np.arange(n, dtype=np.int64) % self.classes
        images = self._noisy(self.levels[labels][:, None, None, None], n, seed)
        class_names = tuple(f"level {c}" for c in range(self.classes))
        return Dataset(name, images, labels, class_names)

    def novel(self, n: int, *, seed: int = 0, name: str = "novel") -> Dataset:
        """Return ``n`` images without labels that belong to no class."""
        left = np.arange(self.width) < self.width / 2
        levels = np.where(
            left, 128 + _STEP_OF_NOVEL_IMAGES / 2, 128 - _STEP_OF_NOVEL_IMAGES / 2
        )
        return Dataset(name, self._noisy(levels[None, None, :, None], n, seed + 1))

    def _noisy(self, levels: npt.NDArray[np.float64], n: int, seed: int) -> Images:
        rng = np.random.default_rng(seed)
        noise = rng.integers(-_NOISE, _NOISE + 1, (n, self.height, self.width, self.channels))
        return np.clip(levels + noise, 0, 255).astype(np.uint8)


class ConstantEmbedder:
    """Gives every image the same vector, the same class and the same novelty.

    Args:
        spec: What it takes.
        dim: Dimensions of the vector.
        classes: Classes among which it cannot decide.
    """

    def __init__(
        self, spec: InputSpec | None = None, *, dim: int = 8, classes: int = 4
    ) -> None:
        self.input = spec or SyntheticImages().spec
        self.dim = dim
        self.classes = classes
        self.digest = "sha256:" + hashlib.sha256(f"constant {dim}".encode()).hexdigest()
        self.usage = Usage()

    def embed(self, images: Images | EncodedImages) -> Embeddings:
        """Return one and the same unit vector per image, (n, d)."""
        self._count(images)
        return np.full((len(images), self.dim), self.dim**-0.5, dtype=np.float32)

    def features(self, images: Images | EncodedImages) -> Embeddings:
        """Return ones, (n, d)."""
        self._count(images)
        return np.ones((len(images), self.dim), dtype=np.float32)

    def score(self, images: Images | EncodedImages) -> ImageScores:
        """Return class 0 and novelty 0 for every image."""
        self._count(images)
        n = len(images)
        even = np.full((n, self.classes), 1 / self.classes, dtype=np.float32)
        return ImageScores(np.zeros(n, np.int64), even, np.zeros(n))

    def _count(self, images: Images | EncodedImages) -> None:
        sent = sum(np.asarray(image).nbytes for image in images)
        self.usage = replace(
            self.usage,
            images=self.usage.images + len(images),
            calls=self.usage.calls + 1,
            bytes_sent=self.usage.bytes_sent + sent,
        )


class PerfectEmbedder(ConstantEmbedder):
    """Knows the class of every synthetic image, and which images are novel.

    An embedding has one dimension per class and one for all that is novel.

    Args:
        source: The generator of the images.
    """

    def __init__(self, source: SyntheticImages) -> None:
        super().__init__(source.spec, dim=source.classes + 1, classes=source.classes)
        self.source = source
        self.digest = "sha256:" + hashlib.sha256(f"perfect {source}".encode()).hexdigest()

    def embed(self, images: Images | EncodedImages) -> Embeddings:
        """Return the unit vector of the class, (n, c + 1)."""
        self._count(images)
        return np.eye(self.dim, dtype=np.float32)[self._classes(images)]

    def features(self, images: Images | EncodedImages) -> Embeddings:
        """Return twice the embedding, so that the two can be told apart."""
        return 2 * self.embed(images)

    def score(self, images: Images | EncodedImages) -> ImageScores:
        """Return the class, certain, and a novelty of 0 or 1."""
        self._count(images)
        found = self._classes(images)
        novel = found == self.source.classes
        labels = np.where(novel, 0, found)
        certain = np.eye(self.source.classes, dtype=np.float32)[labels]
        return ImageScores(labels, certain, novel.astype(np.float64))

    def _classes(self, images: Images | EncodedImages) -> npt.NDArray[np.int64]:
        """Index of the nearest grey level, or the number of classes for a novel image."""
        pixels = prepare(images, self.input).astype(np.float64)
        middle = (pixels.shape[2] + 1) // 2
        step = pixels[:, :, :middle].mean(axis=(1, 2, 3)) - pixels[:, :, middle:].mean(
            axis=(1, 2, 3)
        )
        level = pixels.mean(axis=(1, 2, 3))
        nearest = np.abs(level[:, None] - self.source.levels).argmin(axis=1)
        return np.where(step > _STEP_OF_NOVEL_IMAGES / 2, self.source.classes, nearest)
