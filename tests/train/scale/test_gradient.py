"""The gradient of a step: accumulated, and at perturbed weights."""

from shutil import which

import pytest
import torch

from embedkit.perturb.augmentation import build_augmentation
from embedkit.train.learner import build_state
from embedkit.train.objective import build_objective
from embedkit.train.scale.gradient import Found, Gradient
from embedkit.train.scale.processes import ALONE
from embedkit.train.supply import Augment, Supply
from tests.train.scale.one_step import BATCH, images_of, recipe_of


def prepared(name, **sections):
    """A gradient, and the loss of each of its batches."""
    recipe, images, objective = (
        recipe_of(name, **sections),
        images_of(),
        build_objective(name, {}),
    )
    state = build_state(recipe, objective, images, torch.device("cpu"))
    plain = build_augmentation([])
    supply = Supply(objective, images, Augment(plain, plain, recipe.views))
    gradient = Gradient.prepare(recipe, state, ALONE)

    def loss(number):
        indices = torch.arange(BATCH) + number * BATCH
        generator = torch.Generator().manual_seed(number)
        drawn = supply.draw(state.learner, indices, generator)
        batch = supply.batch(state, drawn, indices, generator, 0.25)
        return Found(objective(batch), batch.features, indices)

    return gradient, loss


def flat(gradient):
    return torch.cat([p.grad.flatten() for p in gradient.state.learner.parameters()])


def test_accumulated_gradients_are_the_mean_over_the_batches():
    gradient, loss = prepared("vicreg", schedule={"batch_size": BATCH, "accumulate": 2})
    gradient.take(loss)
    both = flat(gradient)
    singles = []
    for number in (0, 1):
        single, loss = prepared("vicreg")
        single.take(lambda _, loss=loss, number=number: loss(number))
        singles.append(flat(single))
    torch.testing.assert_close(both, (singles[0] + singles[1]) / 2, rtol=1e-4, atol=1e-6)


def test_the_batch_whose_loss_is_not_finite_is_named():
    gradient, loss = prepared("vicreg", schedule={"batch_size": BATCH, "accumulate": 2})

    def first_is_bad(number):
        found = loss(number)
        bad = found.loss.total * float("nan")
        return found if number else found._replace(loss=type(found.loss)(bad))

    assert gradient.take(first_is_bad).indices[0] == 0


@pytest.mark.parametrize("perturbation", ["none", "sam"])
def test_the_batch_whose_gradient_alone_is_not_finite_is_named(perturbation):
    """The root's slope at 0 is infinite; perturbed weights are no reason to name another."""
    settings = {"batch_size": BATCH, "accumulate": 3}
    perturbed = {"perturbation": perturbation}
    gradient, loss = prepared("vicreg", schedule=settings, optimiser=perturbed)
    passes = []

    def second_is_bad(number):
        found = loss(number % 2)._replace(indices=torch.tensor([number]))
        passes.append(number)
        if number != 1 or len(passes) <= (0 if perturbation == "none" else 3):
            return found
        total = found.loss.total + (found.features.sum() * 0).sqrt()
        return found._replace(loss=type(found.loss)(total))

    found = gradient.take(second_is_bad)
    assert found.loss.total.isfinite()
    assert not flat(gradient).isfinite().all()
    assert found.indices.tolist() == [1]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_queue_moves_once_per_step_however_many_passes(steps):
    kind = "sam" if steps == 1 else "amp"
    settings = {"perturbation": kind, "perturbation_steps": steps}
    perturbed, loss = prepared("moco", optimiser=settings)
    plain, plain_loss = prepared("moco")
    weights = [p.detach().clone() for p in perturbed.state.learner.parameters()]
    perturbed.take(loss)
    plain.take(plain_loss)
    for own, other in (
        (perturbed.state.learner, plain.state.learner),
        (perturbed.state.teacher, plain.state.teacher),
    ):
        for (name, a), (_, b) in zip(own.named_buffers(), other.named_buffers(), strict=True):
            assert torch.equal(a, b), name
    now = list(perturbed.state.learner.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, now, strict=True))
    assert not torch.allclose(flat(perturbed), flat(plain), rtol=1e-3)


def test_a_teachers_blocks_are_found_in_parts_too():
    """The targets of data2vec, from as few images at a time as everything else."""
    plain, loss = prepared("data2vec")
    plain.take(loss)
    cached, loss = prepared("data2vec", run={"gradient_cache": 4})
    seen = []
    for network in (cached.state.learner, cached.state.teacher):
        network.encoder.net.blocks[0].register_forward_pre_hook(
            lambda _, args: seen.append(len(args[0]))
        )
    cached.take(loss)
    views = build_objective("data2vec", {}).views
    # Three parts: the student's twice, the teacher's blocks once.
    assert seen == [4 * views] * 9
    torch.testing.assert_close(flat(cached), flat(plain), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1200)
# torch 2.13's inductor imports a part of torch that warns of itself.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
def test_compiled_networks_give_the_same_gradient():
    """A minute of compilation."""
    if which("g++") is None:
        pytest.skip("no C++ compiler")
    compiled, loss = prepared("simclr", run={"compile": True})
    plain, plain_loss = prepared("simclr")
    compiled.take(loss)
    plain.take(plain_loss)
    torch.testing.assert_close(flat(compiled), flat(plain), rtol=1e-3, atol=1e-5)
