"""The contract of every objective, built-in or third-party."""

import inspect

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import (
    NEEDS,
    Batch,
    Classifying,
    Loss,
    Objective,
    Sizes,
    Taught,
    build_objective,
    objectives,
)

SIZES = Sizes(dim=12, feature_dim=20, classes=3, images=50)
CLASSIFYING = [n for n in objectives.names() if isinstance(build_objective(n, {}), Classifying)]


@pytest.fixture(params=objectives.names())
def objective(request):
    return build_objective(request.param, {})


def test_file_and_name_agree():
    for name in objectives.names():
        assert objectives.get(name).__module__.endswith(f".{name}")


def test_it_declares_what_the_loop_can_supply(objective):
    assert isinstance(objective, Objective)
    assert objective.needs <= NEEDS
    assert objective.views >= 1
    assert ("teacher" in objective.needs) == isinstance(objective, Taught)


def test_it_is_a_frozen_value(objective):
    assert objective == type(objective)()
    assert hash(objective) == hash(type(objective)())
    with pytest.raises(AttributeError):
        objective.anything = 1


def test_it_is_documented(objective):
    documentation = inspect.getdoc(type(objective)) or ""
    assert documentation.splitlines()[0].endswith(".")


def test_unknown_argument_gets_a_suggestion(objective):
    name = type(objective).__module__.rsplit(".", 1)[1]
    known = next(iter(type(objective).__dataclass_fields__))
    with pytest.raises(InvalidInput, match=f"did you mean '{known}'"):
        build_objective(name, {f"{known}_": 1})


@pytest.mark.parametrize("images", [2, 3, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_is_a_finite_scalar_with_gradient(objective, images, dtype):
    batch = _batch(objective, images, dtype)
    loss = objective(batch)
    assert isinstance(loss, Loss)
    assert loss.total.shape == ()
    assert loss.total.dtype == torch.float32
    assert torch.isfinite(loss.total)
    loss.total.backward()
    gradient = _source(objective, batch).grad
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_every_parameter_it_builds_gets_a_gradient(objective):
    batch = _batch(objective, 8)
    objective(batch).total.backward()
    parameters = [] if batch.module is None else list(batch.module.parameters())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)


def test_parts_add_up_to_the_total(objective):
    loss = objective(_batch(objective, 8))
    assert loss.parts
    assert not any(value.requires_grad for value in loss.parts.values())
    assert sum(v.item() for v in loss.parts.values()) == pytest.approx(
        loss.total.item(), rel=1e-5, abs=1e-6
    )


def test_order_of_the_images_does_not_matter(objective):
    batch = _batch(objective, 9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(5))
    shuffled = _permuted(batch, order)
    assert objective(shuffled).total.item() == pytest.approx(
        objective(batch).total.item(), rel=1e-5
    )


def test_bfloat16_is_near_float32(objective):
    exact = _batch(objective, 16)
    rounded = _cast(exact, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(rounded).total
    assert loss.item() == pytest.approx(objective(exact).total.item(), rel=0.05)


def test_equal_seeds_build_equal_modules(objective):
    states = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            module = objective.build(SIZES)
        states.append({} if module is None else module.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_batch_of_one_is_refused(objective):
    with pytest.raises(InvalidInput, match=r"at least 2 images.*batch_size"):
        objective(_batch(objective, 1))


def test_another_number_of_views_is_refused(objective):
    batch = _batch(objective, 4, views=objective.views + 1)
    with pytest.raises(InvalidInput, match=f"of {objective.views} views"):
        objective(batch)


def test_whatever_it_needs_must_be_there(objective):
    for need in sorted(objective.needs & {"labels", "indices", "teacher", "tokens"}):
        values = vars(_batch(objective, 4)) | {need: None}
        with pytest.raises(InvalidInput, match=f"expected a batch with {need}"):
            objective(Batch(**values))


@pytest.mark.parametrize("name", CLASSIFYING)
def test_a_classifier_fits_the_features(name):
    objective = build_objective(name, {})
    assert isinstance(objective, Objective)
    assert isinstance(objective, Classifying)
    module = objective.build(SIZES)
    assert module is not None
    linear = objective.classifier(module)
    assert linear.weight.shape == (SIZES.classes, SIZES.feature_dim)


def _batch(objective, images, dtype=torch.float32, *, views=None):
    """Random input of everything that the objective declares; views of an image are near."""
    generator = torch.Generator().manual_seed(images)
    v = objective.views if views is None else views

    def vectors(dim):
        shared = torch.randn(1, images, dim, generator=generator)
        own = torch.randn(v, images, dim, generator=generator)
        return (shared + 0.5 * own).to(dtype).requires_grad_()

    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = objective.build(SIZES)
    features, projections = vectors(SIZES.feature_dim), vectors(SIZES.dim)
    return Batch(
        projections if "projections" in objective.needs else features,
        features,
        module=None if module is None else module.to(dtype),
        labels=torch.arange(images) % SIZES.classes,
        indices=torch.arange(images),
        teacher=vectors(SIZES.dim).detach(),
        tokens=vectors(4 * SIZES.dim).reshape(v, images, 4, -1),
        generator=generator,
        progress=0.5,
    )


def _source(objective, batch):
    return batch.projections if "projections" in objective.needs else batch.features


def _permuted(batch, order):
    by_view = ("projections", "features", "teacher", "tokens")
    values = vars(batch) | {name: getattr(batch, name)[:, order] for name in by_view}
    by_image = {name: getattr(batch, name)[order] for name in ("labels", "indices")}
    return Batch(**(values | by_image))


def _cast(batch, dtype):
    names = ("projections", "features", "teacher", "tokens")
    return Batch(**(vars(batch) | {name: getattr(batch, name).to(dtype) for name in names}))
