"""What a detector may look at, made from what a model gives for a data set."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedkit.bundle import Head
from embedkit.data.dataset import Dataset
from embedkit.detect.detector import Observation
from embedkit.errors import NotFound
from embedkit.evaluate.context import Context, Which
from embedkit.evaluate.measurement.pixels.views import augmented
from embedkit.evaluate.measurement.rows import probe_rows

__all__ = ["VIEWS", "Observer"]

VIEWS = 4
"""Changed versions of each image, for detectors that compare an image with them."""


@dataclass(frozen=True)
class Observer:
    """One model of a context, as detectors see it.

    The logits are those of the bundle's head; without one, of a logistic regression that is
    fitted here on the features of the training images.

    Attributes:
        context: Models and data.
        which: The model.
    """

    context: Context
    which: Which

    @cached_property
    def head(self) -> Head:
        """The bundle's head, or a fitted one.

        Raises:
            NotFound: If this is another model than the served one, or there are no labels.
        """
        if self.which not in ("served", "local", "twin"):
            raise NotFound(f"expected logits of {self.which}, got a model without a head")
        context = self.context
        if context.bundle is not None and context.bundle.names("heads"):
            return context.bundle.head()
        if context.train.labels is None:
            raise NotFound(
                "expected a bundle with a head or labelled training images, got neither"
            )
        from embedkit.runtime.probe import fit_probe

        rows = probe_rows(context)
        features = context.features(self.which, context.train)[rows]
        probe = fit_probe(
            features,
            np.asarray(context.train.labels)[rows],
            class_names=context.train.class_names or None,
            seed=context.seed,
            cs=(1.0,),
        )
        return probe.head

    def observe(self, dataset: Dataset, needs: frozenset[str]) -> Observation:
        """Return what a detector that has these needs may look at.

        Args:
            dataset: Any; labels are shown of the training images alone, for fitting.
            needs: Fields of an observation.

        Raises:
            NotFound: If the model does not give one of them.
        """
        features = logits = views = head = None
        if needs & {"features", "logits", "head"}:
            features = self.context.features(self.which, dataset)
        if needs & {"logits", "head"}:
            head = self.head
            logits = head.logits(np.asarray(features))
        if "views" in needs:
            views = self._views(dataset)
        labels = dataset.labels if dataset is self.context.train else None
        embeddings = self.context.embeddings(self.which, dataset)
        return Observation(embeddings, features, logits, labels, views, head)

    def _views(self, dataset: Dataset) -> npt.NDArray[np.float32]:
        """Embeddings of changed versions, (n, v, d)."""
        images = dataset.arrays(self.context.spec)
        seed = self.context.seed
        made = [
            Dataset(
                f"{dataset.name} view {v}", augmented(images, ids=dataset.ids, seed=seed + v)
            )
            for v in range(VIEWS)
        ]
        return np.stack([self.context.embeddings(self.which, view) for view in made], axis=1)
