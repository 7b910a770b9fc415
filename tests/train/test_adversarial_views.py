"""Adversarial views: they harm the encoder as it is, and leave no trace in it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from embedkit.encoders.encoder import build_encoder
from embedkit.errors import InvalidInput
from embedkit.perturb.adversary import Adversary
from embedkit.preprocess import InputSpec
from embedkit.train.images import load_images
from embedkit.train.learner import Learner, build_state
from embedkit.train.loop import train
from embedkit.train.objective import build_objective
from embedkit.train.scale.gradient_cache import GradientCache
from embedkit.train.supply import Supply, augment_of
from embedkit.train.supply.adversarial import far_features, mislead

SPEC = InputSpec(8, 8, 1)
PGD = Adversary(25.5, 3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def learner():
    """A network with batch norms whose running statistics mean something."""
    config = {"name": "resnet", "blocks": [1, 1], "width": 4, "input": SPEC.to_dict()}
    encoder = build_encoder(config, seed=3)
    learner = Learner(encoder, nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6)), None).train()
    for _ in range(30):
        learner(pixels(seed=1))
    return learner


def pixels(seed=0):
    return torch.rand(2, 12, 1, 8, 8, generator=seeded(seed))


def cosines(learner, first, second):
    network = copy.deepcopy(learner).eval()
    one, other = (network(x.unsqueeze(0)).features[0] for x in (first, second))
    return functional.cosine_similarity(one, other, dim=1)


def test_features_move_further_than_by_chance_and_further_with_more_steps(learner):
    views = pixels()
    far = far_features(1)
    start = PGD.start(views[1], seeded())
    moved = [(views[1] + start).clamp(0, 1)]
    for steps in (1, 5):
        adversary = Adversary(25.5, steps)
        moved.append(mislead(learner, views, 1, adversary, far, seeded()))
    noise, one, five = (cosines(learner, views[1], m).mean() for m in moved)
    assert five < one < noise
    assert (moved[2] - views[1]).abs().max() <= 0.1 + 1e-6


def test_it_leaves_no_trace_in_the_learner(learner):
    learner.encoder.net.eval()
    before = copy.deepcopy(learner.state_dict())
    modes = [m.training for m in learner.modules()]
    mislead(learner, pixels(), 0, PGD, far_features(0), seeded())
    assert [m.training for m in learner.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


def test_images_do_not_depend_on_each_other(learner):
    """Half of the batch is misled as the whole is: what processes and parts rely on."""
    views, start = pixels(), PGD.start(pixels()[0], seeded())

    class Given(Adversary):
        def start(self, pixels, generator):
            return start[: len(pixels)]

    whole = mislead(learner, views, 0, Given(25.5, 3), far_features(0), seeded())
    half = mislead(learner, views[:, :6], 0, Given(25.5, 3), far_features(0), seeded())
    torch.testing.assert_close(half, whole[:6])
    learner.way = GradientCache(4, list(learner.buffers()))
    parts = mislead(learner, views, 0, Given(25.5, 3), far_features(0), seeded())
    torch.testing.assert_close(parts, whole)


def test_weights_still_learn_under_autocast(learner):
    """Autocast keeps rounded weights; those made without a graph would get no gradient."""
    with torch.autocast("cpu", torch.bfloat16):
        changed = mislead(learner, pixels(), 0, PGD, far_features(0), seeded())
        assert changed.dtype == torch.float32
        learner(changed.unsqueeze(0)).projections.float().square().sum().backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name


def test_the_recipe_replaces_the_last_view(small):
    views = {"adversarial_255": 16, "adversarial_steps": 2}
    drawn, plain = (_drawn(small(views=v)) for v in (views, {}))
    assert torch.equal(drawn[0], plain[0])
    change = (drawn[1] - plain[1]).abs()
    assert 8 / 255 < change.max() <= 16 / 255 + 1e-6


@pytest.mark.parametrize("objective", ["simclr", "cross_entropy"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_runs_with_adversarial_views(small, tmp_path, objective, precision):
    recipe = small(
        objective={"name": objective},
        views={"adversarial_255": 8, "adversarial_norm": "linf"},
        schedule={"max_steps": 4},
        run={"precision": precision},
    )
    assert "adversarial_255 = 8" in recipe.to_toml()
    assert train(recipe, tmp_path / "run", device="cpu").steps == 4


def test_objectives_with_their_own_adversary_want_no_other(small):
    recipe = small(objective={"name": "trades"}, views={"adversarial_255": 8})
    with pytest.raises(
        InvalidInput, match=r"no views\.adversarial_255 for 'trades'.*radius_255"
    ):
        augment_of(recipe, build_objective("trades", {}), SPEC)


@pytest.mark.parametrize(
    "values", [{"adversarial_255": -1}, {"adversarial_steps": 0}, {"adversarial_norm": "l1"}]
)
def test_settings_out_of_range_are_refused(small, values):
    with pytest.raises(InvalidInput, match="expected"):
        small(views=values)


def _drawn(recipe):
    """The views of one step, as they are encoded."""
    objective = build_objective("align_uniform", {})
    images = load_images(recipe, objective, torch.device("cpu"))
    state = build_state(recipe, objective, images, torch.device("cpu"))
    object.__setattr__(objective, "needs", objective.needs | {"pixels"})
    supply = Supply(objective, images, augment_of(recipe, objective, images.spec))
    indices, generator = torch.arange(8), seeded()
    drawn = supply.draw(state.learner, indices, generator)
    return supply.batch(state, drawn, indices, generator, 0.0).pixels
