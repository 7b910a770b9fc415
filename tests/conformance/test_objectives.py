"""The contract of every objective, built-in or third-party."""

import copy
import dataclasses
import inspect

import pytest
import torch

from embedkit.errors import InvalidInput
from embedkit.train.objective import (
    NEEDS,
    Batch,
    Classifying,
    Distilling,
    Loss,
    Masking,
    Objective,
    Opposed,
    Prepared,
    Sizes,
    Taught,
    Transforming,
    build_objective,
    objectives,
)

SIZES = Sizes(
    dim=12,
    feature_dim=20,
    classes=3,
    images=50,
    image_shape=(8, 8, 1),
    grid=(4, 4),
    patch=2,
    embedding_dims=(6,),
)
GIVEN_BY = {
    "teacher": Taught,
    "mask": Masking,
    "embeddings": Distilling,
    "adversarial": Opposed,
}
BY_VIEW = (
    "projections",
    "features",
    "teacher",
    "teacher_blocks",
    "tokens",
    "mask",
    "pixels",
    "targets",
    "adversarial",
)
BY_IMAGE = ("labels", "indices", "images")
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
    for need, protocol in GIVEN_BY.items():
        assert need not in objective.needs or isinstance(objective, protocol)


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
    # With fewer images than classes there may be nothing to draw together.
    is_done = loss.total.item() == 0 and images <= SIZES.classes
    assert is_done or gradient.abs().sum() > 0


def test_every_parameter_it_builds_gets_a_gradient(objective):
    batch = _batch(objective, 8)
    objective(batch).total.backward()
    parameters = [] if batch.module is None else list(batch.module.parameters())
    # A mask token is used by the encoder, which has no part in this batch.
    token = objective.mask_token(batch.module) if isinstance(objective, Masking) else None
    trained = [p for p in parameters if p.requires_grad and p is not token]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)


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
    before = batch.generator.get_state()
    loss = objective(batch).total.item()
    if not torch.equal(before, batch.generator.get_state()):
        pytest.skip("it draws random numbers, which other images get in another order")
    assert objective(shuffled).total.item() == pytest.approx(loss, rel=1e-5)


def test_equal_memories_and_generators_give_equal_losses(objective):
    batch = _batch(objective, 9)
    again = _changed(batch)
    first, second = objective(batch), objective(again)
    assert torch.equal(first.total, second.total)
    if batch.module is not None:
        remembered = again.module.state_dict()
        assert all(torch.equal(v, remembered[k]) for k, v in batch.module.state_dict().items())


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
    for need in sorted(objective.needs - {"projections"}):
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
    count = SIZES.grid[0] * SIZES.grid[1]

    def vectors(dim, number=v):
        shared = torch.randn(1, images, dim, generator=generator)
        own = torch.randn(number, images, dim, generator=generator)
        return (shared + 0.5 * own).to(dtype).requires_grad_()

    def patches(*between):
        shape = (v, images, *between, SIZES.feature_dim)
        return torch.randn(shape, generator=generator).to(dtype)

    module = _module(objective, dtype)
    features, projections = vectors(SIZES.feature_dim), vectors(SIZES.dim)
    mask = None
    if isinstance(objective, Masking):
        mask = objective.hide(SIZES.grid, v * images, generator).unflatten(0, (v, images))
        if objective.mask_token(module) is None:
            count = int((~mask[0, 0]).sum())
    pixels, notes = _pixels(objective, images, generator)
    has_head = "projections" in objective.needs
    return Batch(
        projections if has_head else features,
        features,
        module=module,
        labels=torch.arange(images) % SIZES.classes,
        targets=_shares(v, images),
        indices=torch.arange(images),
        teacher=vectors(SIZES.dim).detach(),
        teacher_module=copy.deepcopy(module),
        teacher_blocks=patches(3, SIZES.grid[0] * SIZES.grid[1]),
        tokens=patches(count).requires_grad_(),
        mask=mask,
        local=vectors(SIZES.dim, 2),
        adversarial=vectors(projections.shape[2] if has_head else SIZES.feature_dim, 1),
        images=torch.rand(images, 1, 8, 8, generator=generator),
        pixels=pixels,
        notes=notes,
        embeddings=tuple(vectors(d, 1)[0].detach() for d in SIZES.embedding_dims),
        generator=generator,
        progress=0.5,
    )


def _shares(views, images):
    """Every image is of its class, and the first one half of the next class too."""
    shares = torch.eye(SIZES.classes)[torch.arange(images) % SIZES.classes]
    shares[0] = torch.tensor([0.5, 0.5, 0.0])
    return shares.expand(views, -1, -1).clone()


def _module(objective, dtype):
    """What the objective builds; the seed is the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = objective.build(SIZES)
    if isinstance(objective, Prepared):
        generator = torch.Generator().manual_seed(2)
        dims = SIZES.embedding_dims
        everything = [torch.randn(SIZES.images, d, generator=generator) for d in dims]
        objective.prepare(module, tuple(everything))
    return None if module is None else module.to(dtype)


def _pixels(objective, images, generator):
    """Views of the images, changed as the objective does it; and its notes."""
    drawn = objective.drawn if isinstance(objective, Transforming) else objective.views
    pixels = torch.rand(drawn, images, 1, 8, 8, generator=generator)
    if not isinstance(objective, Transforming):
        return pixels, {}
    transformed = objective.transform(pixels, generator)
    assert transformed.views.shape == (objective.views, images, 1, 8, 8)
    assert transformed.views.min() >= 0
    assert transformed.views.max() <= 1
    return transformed.views, transformed.notes


def _source(objective, batch):
    """What the gradient reaches first."""
    if "tokens" in objective.needs:
        return batch.tokens
    return batch.projections if "projections" in objective.needs else batch.features


def _changed(batch, **values):
    """The same batch with other values, before its memory and its generator have moved."""
    generator = torch.Generator()
    generator.set_state(batch.generator.get_state())
    module = copy.deepcopy(batch.module)
    return dataclasses.replace(batch, module=module, generator=generator, **values)


def _permuted(batch, order):
    """The same batch with its images in another order."""
    by_view = {name: getattr(batch, name) for name in (*BY_VIEW, "local")}
    values = {name: None if v is None else v[:, order] for name, v in by_view.items()}
    values |= {name: getattr(batch, name)[order] for name in BY_IMAGE}
    values["notes"] = {name: note[order] for name, note in batch.notes.items()}
    if "partner" in batch.notes:
        # It holds positions in the batch, which have moved too.
        values["notes"]["partner"] = torch.argsort(order)[values["notes"]["partner"]]
    values["embeddings"] = tuple(e[order] for e in batch.embeddings)
    return _changed(batch, **values)


def _cast(batch, dtype):
    """The same batch with what the networks give in another precision."""
    values = {name: getattr(batch, name) for name in (*BY_VIEW, "local")}
    floats = {n: v for n, v in values.items() if v is not None and v.is_floating_point()}
    return _changed(batch, **{name: v.to(dtype) for name, v in floats.items()})
