"""Data for the plots of a report; drawing them is the business of ``html``."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embedkit.types import Embeddings, Images, Pixels, Scores

__all__ = ["embedding_map", "histogram", "image_grid", "png"]

_VALUES_PER_SERIES = 400


def histogram(series: Mapping[str, Scores], title: str) -> dict[str, object]:
    """Return the values of each series, thinned to evenly spaced quantiles."""
    return {
        "kind": "histogram",
        "title": title,
        "series": {name: _quantiles(values) for name, values in series.items()},
    }


def embedding_map(
    embeddings: Embeddings, labels: Sequence[str], title: str
) -> dict[str, object]:
    """Return a 2-D map: the embeddings on their first two principal components.

    Args:
        embeddings: (n, d); with d = 1 the second axis is zero.
        labels: What each point is; n of them.
        title: What is written above.
    """
    centred = np.asarray(embeddings, np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    # An eigenvector's sign is arbitrary: the largest entry is made positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    points = np.zeros((len(centred), 2))
    points[:, : axes.shape[1]] = centred @ axes
    return {
        "kind": "scatter2d",
        "title": title,
        "x": [round(float(v), 4) for v in points[:, 0]],
        "y": [round(float(v), 4) for v in points[:, 1]],
        "labels": list(labels),
    }


def image_grid(rows: Sequence[tuple[str, Images]], title: str) -> dict[str, object]:
    """Return rows of images, each with a label."""
    return {
        "kind": "image_grid",
        "title": title,
        "rows": [
            {"label": label, "images": [png(image) for image in images]}
            for label, images in rows
        ],
    }


def png(image: Pixels) -> str:
    """Return one image, (h, w, 1 or 3) uint8, as a PNG file in base64."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _quantiles(values: npt.NDArray[np.float64]) -> list[float]:
    count = min(len(values), _VALUES_PER_SERIES)
    ordered = np.sort(values)
    kept = ordered[np.linspace(0, len(ordered) - 1, count).round().astype(int)]
    return [float(f"{v:.6g}") for v in kept]
