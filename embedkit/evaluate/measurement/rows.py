"""Which training images a probe is fitted on."""

import numpy as np
import numpy.typing as npt

from embedkit.evaluate.context import Context

__all__ = ["probe_rows"]


def probe_rows(context: Context) -> npt.NDArray[np.int64]:
    """The training images that are fitted on, ascending; the same for model and baselines."""
    labels = np.asarray(context.train.labels)
    limit = context.options.probe_images
    if not 0 < limit < len(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng(context.seed)
    order = rng.permutation(len(labels))
    ranks = np.empty(len(labels), np.float64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        ranks[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.sort(np.argsort(ranks, kind="stable")[:limit])
