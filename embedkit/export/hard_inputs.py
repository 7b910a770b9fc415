"""Images on which two implementations of one network are most likely to differ."""

import numpy as np
import numpy.typing as npt

from embedkit.types import Embedder, Images

__all__ = ["patterns", "search"]

_PARENTS = 16
_CHILDREN = 4


def patterns(shape: tuple[int, ...], rng: np.random.Generator) -> Images:
    """Extreme images of one shape (h, w, c), (n, h, w, c) uint8, n about 30.

    Constants, checkerboards and stripes of one pixel and of half the image, noise that is
    uniform, saturated, or all but constant, single bright and single dark pixels.
    """
    height, width, channels = shape
    rows, columns = np.indices((height, width))
    constants = [np.full(shape, value) for value in (0, 1, 127, 128, 254, 255)]
    masks = [
        (rows + columns) % 2,
        rows % 2,
        columns % 2,
        rows >= height // 2,
        columns >= width // 2,
    ]
    binary = [
        np.repeat((255 * side)[:, :, None], channels, axis=2)
        for mask in masks
        for side in (mask, 1 - mask)
    ]
    noise = [rng.integers(0, 256, shape) for _ in range(4)]
    saturated = [255 * rng.integers(0, 2, shape) for _ in range(4)]
    faint = [127 + rng.integers(0, 2, shape) for _ in range(2)]
    places = [(0, 0), (height - 1, width - 1), (height // 2, width // 2)]
    dots = []
    for place in places:
        for dark, bright in ((0, 255), (255, 0)):
            dot = np.full(shape, dark)
            dot[place] = bright
            dots.append(dot)
    return np.stack([*constants, *binary, *noise, *saturated, *faint, *dots]).astype(np.uint8)


def search(
    first: Embedder,
    second: Embedder,
    start: Images,
    *,
    steps: int,
    rng: np.random.Generator,
) -> Images:
    """Climb from the worst of ``start`` to images on which the embedders differ more.

    Each step changes every parent in four random ways and keeps the 16 worst of parents and
    children, so the difference never falls.

    Args:
        first: The reference.
        second: What is compared with it.
        start: (n, h, w, c) uint8, n >= 1.
        steps: Rounds of 64 images each.
        rng: Chooses the changes.

    Returns:
        At most 16 images, the worst first.
    """

    def errors(images: Images) -> npt.NDArray[np.float64]:
        gaps = np.abs(first.embed(images) - second.embed(images)).max(axis=1)
        return np.where(np.isnan(gaps), np.inf, gaps).astype(np.float64)

    scores = np.concatenate([errors(start[i : i + 64]) for i in range(0, len(start), 64)])
    best = np.argsort(-scores, kind="stable")[:_PARENTS]
    parents, scores = start[best], scores[best]
    for _ in range(steps):
        children = np.concatenate([_mutate(parents, rng) for _ in range(_CHILDREN)])
        pool = np.concatenate([parents, children])
        scores = np.concatenate([scores, errors(children)])
        best = np.argsort(-scores, kind="stable")[:_PARENTS]
        parents, scores = pool[best], scores[best]
    return parents


def _mutate(images: Images, rng: np.random.Generator) -> Images:
    """Every image with one random change: a box, a few pixels, noise, or contrast."""
    changed = images.astype(np.int64)
    _, height, width, channels = images.shape
    for image in changed:
        kind = rng.integers(4)
        if kind == 0:
            top, left = rng.integers(height), rng.integers(width)
            bottom, right = rng.integers(top, height) + 1, rng.integers(left, width) + 1
            image[top:bottom, left:right] = rng.integers(0, 256, channels)
        elif kind == 1:
            count = 1 + height * width // 32
            place = rng.integers(height, size=count), rng.integers(width, size=count)
            image[place] = rng.integers(0, 256, (count, channels))
        elif kind == 2:
            image[:] = image + rng.integers(-16, 17, image.shape)
        else:
            image[:] = 128 + (image - 128) * rng.choice([0.25, 0.5, 2.0, 4.0])
    return changed.clip(0, 255).astype(np.uint8)
