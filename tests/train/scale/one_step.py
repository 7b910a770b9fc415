"""One step of every objective, by this process alone or by all that ``torchrun`` started.

    torchrun --nproc-per-node 2 one_step.py FOLDER NAME...

The first process writes what it found to ``FOLDER/NAME.npz``. ``run`` and ``grouped`` are whole
runs of ``FOLDER/recipe.toml``; ``unshared`` is one whose processes have no folder in common.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from embedkit.errors import InvalidInput
from embedkit.perturb.augmentation import build_augmentation
from embedkit.preprocess import InputSpec
from embedkit.train.images import TrainingImages
from embedkit.train.learner import build_state
from embedkit.train.loop import train
from embedkit.train.objective import build_objective
from embedkit.train.recipe import Recipe
from embedkit.train.scale.gradient import Found, Gradient
from embedkit.train.scale.processes import ALONE, Processes, joined
from embedkit.train.supply import Augment, Supply

BATCH, IMAGES = 12, 24
AUGMENTATION = [{"name": "geometric", "area": [0.5, 1.0]}, {"name": "colour", "p": 1.0}]
PATCHES = {"tokens", "mask", "teacher_blocks"}


def recipe_of(name: str, **sections: dict[str, object]) -> Recipe:
    """A step of 12 images by a network with batch norm, or with patches if they are needed."""
    needs = build_objective(name, {}).needs
    encoder: dict[str, object] = {"name": "resnet", "blocks": [1, 1], "width": 4}
    if needs & PATCHES:
        encoder = {"name": "vit", "patch": 2, "dim": 16, "depth": 2, "heads": 2}
    table: dict[str, object] = {
        "seed": 3,
        "data": {"source": "none"},
        "encoder": encoder,
        "objective": {"name": name},
        "projection": {"hidden": 16, "dim": 8},
        "schedule": {"batch_size": BATCH},
        "views": {"local": 2 if "local" in needs else 0},
    }
    return Recipe.from_dict(table | sections)


def images_of() -> TrainingImages:
    """Images of noise with everything that an objective may want to know of them."""
    generator = torch.Generator().manual_seed(7)
    return TrainingImages(
        images=torch.randint(0, 256, (IMAGES, 8, 8, 1), generator=generator).to(torch.uint8),
        labels=torch.arange(IMAGES) % 3,
        spec=InputSpec(height=8, width=8, channels=1),
        class_names=("a", "b", "c"),
        digest="sha256:none",
        mean=(0.5,),
        std=(0.3,),
        embeddings=(torch.randn(IMAGES, 6, generator=generator),),
    )


def one_step(name: str, processes: Processes = ALONE, **sections: dict[str, object]):
    """Loss, gradients and buffers after a step, and every process's own idea of the loss."""
    recipe, images = recipe_of(name, **sections), images_of()
    objective = build_objective(name, {})
    state = build_state(recipe, objective, images, torch.device("cpu"))
    augment = build_augmentation(AUGMENTATION)
    supply = Supply(objective, images, Augment(augment, augment, recipe.views))
    gradient = Gradient.prepare(recipe, state, processes)
    enabled = recipe.run.precision == "bf16"

    def loss(number: int) -> Found:
        indices = torch.arange(BATCH) + number * BATCH
        generator = torch.Generator().manual_seed(number)
        drawn = supply.draw(state.learner, indices, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            batch = supply.batch(state, drawn, indices, generator, 0.25)
            return Found(objective(batch), batch.features, indices)

    found = gradient.take(loss)
    arrays = {"loss": found.loss.total.detach().numpy()}
    for key, parameter in state.learner.named_parameters():
        if parameter.grad is not None:
            arrays[f"gradient {key}"] = parameter.grad.numpy()
    for key, buffer in state.learner.named_buffers():
        arrays[f"buffer {key}"] = buffer.float().numpy()
    return arrays


def grouped(recipe: Recipe) -> Recipe:
    """The same with batches of hard negatives, found anew each epoch, and looks at images."""
    sampling = {"batches": "hard_negatives", "refresh_epochs": 1, "cluster_images": 4}
    table = recipe.to_dict()
    run = {**table["run"], "probe_steps": 3}  # type: ignore[dict-item]
    return Recipe.from_dict({**table, "sampling": sampling, "run": run})


def special(name: str, processes: Processes):
    """A step of an objective, or under one of these names one in which more goes together."""
    if name == "bf16":
        return one_step("byol", processes, run={"precision": "bf16"})
    if name == "misled":
        views = {"adversarial_255": 16, "adversarial_steps": 2}
        return one_step("simclr", processes, views=views)
    if name == "cached":
        cached = {"run": {"gradient_cache": 2}, "optimiser": {"perturbation": "sam"}}
        return one_step("moco", processes, **cached)
    return one_step(name, processes)


def unshared(recipe: Recipe, folder: Path, processes: Processes) -> None:
    """Why processes with a folder of their own each do not train."""
    found = []
    for action in (
        lambda: train(recipe, folder / f"own{processes.rank}", device="cpu"),
        lambda: processes.check_same(3 * processes.rank, "step"),
    ):
        try:
            action()
        except InvalidInput as error:
            found.append(str(error))
    (folder / f"unshared{processes.rank}.txt").write_text("\n".join(found))


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    recipe = Recipe.load(folder / "recipe.toml")
    with joined("cpu") as processes:
        for name in names:
            if name == "unshared":
                unshared(recipe, folder, processes)
            elif name in ("run", "grouped"):
                chosen = grouped(recipe) if name == "grouped" else recipe
                train(chosen, folder / name, device="cpu")
            else:
                arrays = special(name, processes)
                if processes.is_first:
                    np.savez(folder / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
