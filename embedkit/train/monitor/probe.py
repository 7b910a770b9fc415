"""Probe: some images that a run looks at again and again, to see what became of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from embedkit.bundle import pack_arrays, unpack_arrays
from embedkit.encoders.encoder import Encoder
from embedkit.errors import BundleDamaged
from embedkit.measures.knn import unit, weighted_knn
from embedkit.train.images import TrainingImages, seed_of
from embedkit.train.run.checkpoint import write_file
from embedkit.train.supply.features import embed_some

__all__ = ["Maps", "Probe", "common_plane"]

_NEIGHBOURS, _TEMPERATURE = 20, 0.07
_QUERIES = 0.2
"""Share of the images whose class is guessed from the others'."""
_MAPPED = 400
"""Images that a map shows: more would hide each other."""
_KEPT = 16
"""Maps that are kept; of more, every second one goes."""


@dataclass(frozen=True)
class Probe:
    """Looks at the same images whenever it is asked.

    Attributes:
        images: All training images.
        indices: Which of them are looked at, (m,), in random order.
        folder: The run folder; gets ``maps.npz``.
    """

    images: TrainingImages
    indices: torch.Tensor
    folder: Path

    @classmethod
    def of(cls, images: TrainingImages, folder: Path, *, count: int, seed: int) -> "Probe":
        """A probe of ``count`` images, or all; the same for equal data and seeds."""
        generator = torch.Generator().manual_seed(seed_of(seed, "probe", 0))
        drawn = torch.randperm(len(images), generator=generator)[:count]
        return cls(images, drawn.to(images.images.device), folder)

    def look(self, encoder: Encoder, step: int) -> float | None:
        """Add a map, and say how often neighbours tell an image's class.

        Args:
            encoder: As it is now.
            step: Steps done.

        Returns:
            Weighted kNN (k = 20, T = 0.07) of a fifth of the images against the others, as a
            fraction; None without labels. These are training images: it shows whether a run
            gets on, and is no result.
        """
        features = embed_some(encoder, self.images, self.indices)
        labels = self.images.classes
        chosen = None if labels is None else labels[self.indices].cpu().numpy()
        self._keep(features[:_MAPPED], step)
        queries = round(_QUERIES * len(features))
        if chosen is None or not queries:
            return None
        guessed = weighted_knn(
            features[queries:],
            chosen[queries:],
            features[:queries],
            ks=(_NEIGHBOURS,),
            temperature=_TEMPERATURE,
            classes=len(self.images.class_names),
        )[_NEIGHBOURS]
        return float(np.mean(guessed == chosen[:queries]))

    def _keep(self, features: npt.NDArray[np.float32], step: int) -> None:
        """Write ``maps.npz``; what a run that was cut had added later is dropped."""
        before = Maps.read(self.folder)
        earlier = [] if before is None else [i for i, s in enumerate(before.steps) if s < step]
        steps = [*(before.steps[i] for i in earlier if before is not None), step]
        stack = [*(before.embeddings[i] for i in earlier if before is not None)]
        stack.append(unit(features).astype(np.float16))
        if len(steps) > _KEPT:
            steps, stack = [*steps[:-1:2], steps[-1]], [*stack[:-1:2], stack[-1]]
        arrays = {"steps": np.asarray(steps), "embeddings": np.stack(stack)}
        if self.images.classes is not None:
            arrays["labels"] = self.images.classes[self.indices[:_MAPPED]].cpu().numpy()
        write_file(self.folder / "maps.npz", pack_arrays(arrays))


@dataclass(frozen=True)
class Maps:
    """The same images' embeddings at several steps.

    Attributes:
        steps: Steps done at each look, ascending.
        embeddings: (s, m, f) float16 of unit length.
        labels: (m,) class indices, or None.
    """

    steps: tuple[int, ...]
    embeddings: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64] | None

    @classmethod
    def read(cls, folder: Path) -> "Maps | None":
        """What a run kept, or None.

        Raises:
            BundleDamaged: If ``maps.npz`` is not what was written.
        """
        path = folder / "maps.npz"
        if not path.exists():
            return None
        try:
            arrays = unpack_arrays(path.read_bytes())
            labels = arrays["labels"].astype(np.int64) if "labels" in arrays else None
            steps = tuple(int(step) for step in arrays["steps"])
            return cls(steps, arrays["embeddings"].astype(np.float16), labels)
        except (BundleDamaged, ValueError, TypeError, KeyError, OSError) as error:
            raise BundleDamaged(
                f"expected the maps of a run in {path}, got a file that does not read as them "
                f"({error}); delete it to go on"
            ) from error


def common_plane(embeddings: npt.NDArray[np.float16]) -> npt.NDArray[np.float64]:
    """Project all looks on the two directions in which all of them together vary most.

    One basis for all (the first two principal axes of every embedding of every look), so that
    maps can be compared: a point that does not move did not change.

    Args:
        embeddings: (s, m, f).

    Returns:
        (s, m, 2); the sign of an axis is chosen so that its largest entry is positive.
    """
    rows = embeddings.astype(np.float64)
    flat = rows.reshape(-1, rows.shape[2])
    _, vectors = np.linalg.eigh(
        np.cov(flat, rowvar=False, bias=True).reshape(rows.shape[2], -1)
    )
    axes = vectors[:, :-3:-1]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    plane = (rows - flat.mean(axis=0)) @ axes
    missing = 2 - plane.shape[2]
    return np.pad(plane, ((0, 0), (0, 0), (0, missing))) if missing else plane
