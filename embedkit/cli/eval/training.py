"""What studies call to train: the recipe on other images, exported and served."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import InvalidInput

if TYPE_CHECKING:
    from embedkit.client.served import ServedModel
    from embedkit.data.dataset import Dataset
    from embedkit.train.recipe import Recipe

__all__ = ["Trainer"]


@dataclass
class Trainer:
    """Trains, exports and serves, each model in a folder of its own.

    A study that was interrupted goes on: what is trained or exported already is used again,
    and refused where it learned from other images than those of the study now.

    Attributes:
        recipe: Everything but the images.
        out: Folder of the study.
        device: Where to train: ``auto``, ``cpu`` or ``cuda``.
        served: Every model that was served, by name; it answers only while it is.
    """

    recipe: "Recipe"
    out: Path
    device: str = "auto"
    served: "dict[str, ServedModel]" = field(default_factory=dict)

    @contextmanager
    def __call__(self, images: "Dataset", name: str) -> Iterator["ServedModel"]:
        """Train on the images, and serve the model on a free port as long as this lasts."""
        import embedkit
        from embedkit.serve.server import running_server

        models = self._bundle(images, name)
        with (
            running_server(models=models, data_dir=self.out / name / "var") as address,
            embedkit.connect(address) as client,
        ):
            model = client.model(name)
            self.served[name] = model
            yield model

    def _bundle(self, images: "Dataset", name: str) -> Path:
        """Train and export, as far as that is not done; return the folder of models.

        Raises:
            InvalidInput: If the model that is there learned from other images.
        """
        from embedkit.bundle import Bundle
        from embedkit.export.run import export_run
        from embedkit.runtime.local import load
        from embedkit.train.loop import train

        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        data = folder / "train.npz"
        pixels = np.asarray(images.images)
        if images.labels is None:
            np.savez(data, x_train=pixels)
        else:
            np.savez(data, x_train=pixels, y_train=images.labels)
        section = replace(self.recipe.data, source=str(data), limit=0)
        recipe = replace(self.recipe, data=section, expected={})
        run = train(recipe, folder / "run", resume=True, device=self.device, load_bundle=load)
        models = folder / "models"
        if not (models / name / "1").is_dir():
            export_run(folder / "run", name=name, models=models)
        learned_from = Bundle(models / name / "1", verify=False).manifest.data_digest
        if learned_from != run.data_digest:
            raise InvalidInput(
                f"expected a model of the images of this study, {run.data_digest}, got "
                f"{learned_from or 'one of unknown images'} in {models / name / '1'}; "
                "choose another --out"
            )
        return models
