"""The part of the images that a run is trained on, chosen by a finished model's embeddings."""

import hashlib

import torch

from embedkit.errors import InvalidInput
from embedkit.train.images import TrainingImages, seed_of
from embedkit.train.images.subset import k_centre, most_similar
from embedkit.train.recipe import Recipe
from embedkit.train.run.bundles import LoadBundle, embed_pixels
from embedkit.train.terms import k_means

__all__ = ["select_images"]

_ITERATIONS = 50


def select_images(
    images: TrainingImages, recipe: Recipe, load_bundle: LoadBundle | None
) -> TrainingImages:
    """Return the images that ``[sampling]`` asks for; equal arguments give equal ones.

    Args:
        images: All of the data.
        recipe: Which subset, how large, by which model.
        load_bundle: Opens the model.

    Raises:
        InvalidInput: If a model is needed and not named, nothing is there to open it with, or
            too few images are left for a batch.
        NotFound: If there is no such model.
    """
    settings = recipe.sampling
    if settings.subset == "all":
        return images
    kept = round(settings.subset_share * len(images))
    if kept < recipe.schedule.batch_size:
        raise InvalidInput(
            f"expected a subset of at least schedule.batch_size={recipe.schedule.batch_size} "
            f"images, got {kept} of {len(images)}; raise sampling.subset_share"
        )
    seed = seed_of(recipe.seed, "subset", 0)
    if settings.subset == "random":
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(images), generator=generator)[:kept].sort().values
    else:
        z = _embedded(images, settings.proxy, load_bundle)
        if settings.subset == "k_centre":
            chosen = k_centre(z, settings.subset_share)
        else:
            count = min(settings.clusters, len(images))
            clusters = k_means(z, count, iterations=_ITERATIONS, seed=seed)
            chosen = most_similar(z, clusters, settings.subset_share)
    digest = hashlib.sha256(images.digest.encode() + chosen.cpu().numpy().tobytes())
    return images.part(chosen, "sha256:" + digest.hexdigest())


def _embedded(
    images: TrainingImages, proxy: str, load_bundle: LoadBundle | None
) -> torch.Tensor:
    if not proxy or load_bundle is None:
        raise InvalidInput(
            "expected the folder of a finished model that chooses the images, got none; set "
            "for example sampling.proxy=models/digits/1 (and pass load_bundle=embedkit.load "
            "from Python), or sampling.subset=random"
        )
    z = torch.from_numpy(embed_pixels(images, load_bundle(proxy)))
    return torch.nn.functional.normalize(z, dim=1)
