"""A victim whose boundary is a plane, so that every attack's optimum is known exactly."""

from dataclasses import dataclass, field

import numpy as np

from embedkit.evaluate.attack import Target


@dataclass
class Plane:
    """Embeds an image as its score w . x + b, which is positive while it is handled."""

    normal: np.ndarray
    offset: float
    dim: int = 1
    digest: str = "sha256:plane"
    asked: list = field(default_factory=list)

    def embed(self, images):
        self.asked.append(len(images))
        flat = images.reshape(len(images), -1).astype(np.float64)
        return (flat @ self.normal + self.offset).astype(np.float32)[:, None]


@dataclass(frozen=True)
class SignHead:
    """The margin is the score itself."""

    def margins(self, embeddings, indices):
        return embeddings[:, 0].astype(np.float64)


def plane_target(rng, *, count=6, side=8, channels=1, distance=60.0):
    """Images at the same Euclidean distance from a random plane, in grey levels."""
    size = side * side * channels
    normal = rng.standard_normal(size)
    normal /= np.linalg.norm(normal)
    middle = np.full(size, 128.0)
    offset = -float(middle @ normal)
    images = np.rint(middle + distance * normal + rng.normal(0, 0.5, (count, size)))
    images = images.astype(np.uint8).reshape(count, side, side, channels)
    victim = Plane(normal, offset)
    return Target(victim, SignHead(), images, tuple(map(str, range(count))))


def exact_distances(target, norm):
    """Distance to the plane in the norm: the score over the dual norm of w, (n,)."""
    scores = target.victim.embed(target.images)[:, 0]
    dual = {"l2": 2, "linf": 1}[norm]
    return scores / np.linalg.norm(target.victim.normal, ord=dual)


def part_of(target, rows):
    return Target(
        target.victim, target.head, target.images[rows], tuple(target.ids[i] for i in rows)
    )
