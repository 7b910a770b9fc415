"""What the loop supplies is what the objective asked for."""

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.encoders.encoder import build_encoder
from embedkit.errors import InvalidInput
from embedkit.perturb.adversary import Adversary
from embedkit.perturb.augmentation import build_augmentation
from embedkit.preprocess import InputSpec
from embedkit.train.batch import Loss, Transformed
from embedkit.train.images import TrainingImages, load_images
from embedkit.train.learner import Learner, State, build_state
from embedkit.train.loop import train
from embedkit.train.objective import NEEDS, build_objective
from embedkit.train.settings import ViewsSection
from embedkit.train.supply import Augment, Supply, augment_of

SPEC = InputSpec(8, 8, 1)


class Everything:
    """An objective that needs all there is."""

    needs = NEEDS
    views = 3
    drawn = 1
    bundles = ("a",)
    adversary = Adversary(25.5, 2)

    def build(self, sizes):
        return nn.Linear(8, 2)

    def teacher_momentum(self, progress):
        return 0.9

    def hide(self, grid, count, generator):
        patches = grid[0] * grid[1]
        return torch.arange(patches).repeat(count, 1) % 4 == 0

    def mask_token(self, module):
        return None

    def transform(self, views, generator):
        darker = torch.cat([views, views / 2, views / 4])
        return Transformed(darker, {"share": torch.arange(views.shape[1])})

    def harm(self, changed, clean, rows, module):
        return (changed - clean[0, rows]).square().sum(dim=1)

    def __call__(self, batch):
        return Loss.sum(nothing=batch.projections.sum())


class Nothing(Everything):
    """An objective with the same abilities that asks for none of it."""

    needs = frozenset()
    views = 1

    def transform(self, views, generator):
        return Transformed(views)


@pytest.fixture
def state(rng):
    vit = {"name": "vit", "patch": 2, "dim": 8, "depth": 3, "heads": 1}
    encoder, other = (
        build_encoder({**vit, "input": SPEC.to_dict()}, seed=seed) for seed in (0, 1)
    )
    learner = Learner(encoder, nn.Linear(8, 5), nn.Linear(8, 2))
    teacher = Learner(other, nn.Linear(8, 5), nn.Linear(8, 2)).requires_grad_(False)
    return State(learner, torch.optim.SGD(learner.parameters()), teacher, None)


def test_everything_is_there(state, rng):
    supply, images = _supply(Everything(), rng)
    indices = torch.tensor([7, 2, 5, 0])
    generator = torch.Generator().manual_seed(0)
    drawn = supply.draw(state.learner, indices, generator)
    batch = supply.batch(state, drawn, indices, generator, 0.25)

    assert batch.projections.shape == (3, 4, 5)
    assert batch.features.shape == (3, 4, 8)
    assert batch.tokens.shape == (3, 4, 12, 8)
    assert batch.mask.shape == (3, 4, 16)
    assert batch.local.shape == (2, 4, 5)
    assert batch.adversarial.shape == (1, 4, 5)
    assert batch.targets.shape == (1, 4, 3)
    assert batch.targets[0].argmax(dim=1).tolist() == batch.labels.tolist()
    assert batch.teacher.shape == (3, 4, 5)
    assert batch.teacher_blocks.shape == (3, 4, 3, 16, 8)
    assert batch.teacher_module is state.teacher.module
    assert batch.progress == 0.25
    assert batch.labels.tolist() == images.labels[indices].tolist()
    assert batch.indices.tolist() == [7, 2, 5, 0]
    assert batch.notes["share"].tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(batch.embeddings[0], images.embeddings[0][indices])
    plain = images.images[indices].permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(batch.images, plain)
    torch.testing.assert_close(batch.pixels[1], batch.pixels[0] / 2)


def test_the_teacher_sees_what_is_hidden_from_the_student(state, rng):
    supply, _ = _supply(Everything(), rng)
    indices, generator = torch.tensor([1, 3]), torch.Generator().manual_seed(0)
    drawn = supply.draw(state.learner, indices, generator)
    batch = supply.batch(state, drawn, indices, generator, 0.0)
    whole = state.teacher(drawn.views.views)
    torch.testing.assert_close(batch.teacher, whole.projections)
    assert not batch.teacher.requires_grad
    # Normalised, the last of the blocks is what the encoder calls its tokens.
    last = state.teacher.encoder.net.norm(batch.teacher_blocks[:, :, -1])
    torch.testing.assert_close(last, whole.tokens)


def test_nothing_is_made_that_was_not_asked_for(state, rng):
    supply, _ = _supply(Nothing(), rng)
    indices, generator = torch.tensor([1, 3]), torch.Generator().manual_seed(0)
    drawn = supply.draw(state.learner, indices, generator)
    assert drawn.local is None
    batch = supply.batch(state, drawn, indices, generator, 0.0)
    for name in (
        "tokens",
        "mask",
        "local",
        "targets",
        "adversarial",
        "images",
        "pixels",
        "indices",
        "teacher",
    ):
        assert getattr(batch, name) is None
    assert batch.teacher_blocks is None


def _supply(objective, rng):
    pixels = torch.tensor(rng.integers(0, 256, size=(10, 8, 8, 1)), dtype=torch.uint8)
    embeddings = torch.tensor(rng.normal(size=(10, 3)), dtype=torch.float32)
    images = TrainingImages(
        pixels,
        torch.arange(10) % 3,
        SPEC,
        ("a", "b", "c"),
        "sha256:0",
        (0.5,),
        (0.25,),
        embeddings=(embeddings,),
        embedder_digests=("sha256:1",),
    )
    crop = build_augmentation([{"name": "geometric", "area": [0.2, 0.4]}])
    augment = Augment(build_augmentation([]), crop, ViewsSection(local=2))
    return Supply(objective, images, augment), images


def test_random_numbers_come_from_the_generator(state, rng):
    supply, _ = _supply(Everything(), rng)
    indices = torch.tensor([1, 3])
    draws = [
        supply.draw(state.learner, indices, torch.Generator().manual_seed(s)).local
        for s in (0, 0, 1)
    ]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_small_crops_are_of_the_size_and_area_that_the_recipe_says(small):
    recipe = small(
        objective={"name": "swav"},
        views={"local": 3, "local_area": [0.1, 0.2], "local_side": 0.5},
        augmentation=[{"name": "geometric", "area": [0.9, 1.0]}, {"name": "noise"}],
    )
    augment = augment_of(recipe, build_objective("swav", {}), SPEC)
    whole, noise = augment.small.steps
    assert (whole.area, type(noise)) == ((0.1, 0.2), type(augment.whole.steps[1]))
    crops = augment.crops(torch.rand(4, 1, 8, 8), torch.Generator().manual_seed(0))
    assert crops.shape == (3, 4, 1, 4, 4)


def test_an_augmentation_without_a_crop_gets_one_for_small_views(small):
    recipe = small(objective={"name": "dino"}, augmentation="none", views={"local": 1})
    augment = augment_of(recipe, build_objective("dino", {}), SPEC)
    assert augment.whole.steps == ()
    assert augment.small.steps[0].area == (0.05, 0.3)


def test_small_crops_that_nobody_compares_are_refused(small):
    recipe = small(objective={"name": "simclr"}, views={"local": 2})
    with pytest.raises(
        InvalidInput, match=r"views\.local = 2, got 'simclr'; use dino, msn, swav"
    ):
        augment_of(recipe, build_objective("simclr", {}), SPEC)


@pytest.mark.parametrize("name", ["simclr", "supcon"])
def test_mixed_images_need_an_objective_that_takes_mixed_labels(small, name):
    recipe = small(objective={"name": name}, augmentation=[{"name": "cutmix"}])
    wanted = f"mixed labels .* got '{name}'; use cross_entropy, trades, vat, well_classified"
    with pytest.raises(InvalidInput, match=wanted):
        augment_of(recipe, build_objective(name, {}), SPEC)


def test_mixed_labels_arrive_with_the_mixed_images(small, tmp_path):
    augmentation = [{"name": "geometric"}, {"name": "mixup"}, {"name": "cutmix", "p": 1.0}]
    recipe = small(objective={"name": "cross_entropy"}, augmentation=augmentation)
    objective = build_objective("cross_entropy", {})
    images = load_images(recipe, objective, torch.device("cpu"))
    state = build_state(recipe, objective, images, torch.device("cpu"))
    supply = Supply(objective, images, augment_of(recipe, objective, images.spec))
    indices, generator = torch.arange(8), torch.Generator().manual_seed(0)
    drawn = supply.draw(state.learner, indices, generator)
    targets = supply.batch(state, drawn, indices, generator, 0.0).targets
    assert targets.shape == (1, 8, 10)
    torch.testing.assert_close(targets.sum(dim=2), torch.ones(1, 8))
    assert (targets > 0).sum(dim=2).max() >= 2
    assert train(recipe, tmp_path / "run", device="cpu").steps == 8


def test_none_are_an_empty_tensor(state, rng):
    supply, _ = _supply(Everything(), rng)
    none = supply.augment._replace(settings=ViewsSection())
    supply = Supply(supply.objective, supply.images, none)
    indices, generator = torch.tensor([1, 3]), torch.Generator().manual_seed(0)
    drawn = supply.draw(state.learner, indices, generator)
    assert supply.batch(state, drawn, indices, generator, 0.0).local.shape == (0, 2, 5)
