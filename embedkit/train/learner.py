"""Learner: everything that one run trains, and everything a checkpoint must hold."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import nn

from embedkit.encoders.encoder import Encoder, Hidden, build_encoder
from embedkit.encoders.heads import projection_head
from embedkit.encoders.weights import load_normalisation, load_weights
from embedkit.errors import InvalidInput
from embedkit.train.batch import ImageIndices, Mask, Projections, Sizes, Tokens
from embedkit.train.images import Groups, TrainingImages, seed_of
from embedkit.train.objective import Objective, Prepared
from embedkit.train.optim import build_optimiser
from embedkit.train.recipe import Recipe

__all__ = ["Learner", "Network", "Part", "State", "Viewed", "Way", "build_state"]

_CHANNEL_BLOCK = 8
"""Channels that oneDNN computes at a time with AVX2."""


class Part(NamedTuple):
    """What a network is run on: all images of a batch, or some of them.

    Attributes:
        pixels: (v, b, c, h, w) float in [0, 1].
        mask: Patches that are hidden, (v, b, t), or None.
        token: What stands in their place; None drops them.
        rows: Which of the batch's images these are, (b,), or None.
    """

    pixels: torch.Tensor
    mask: Mask | None = None
    token: torch.Tensor | None = None
    rows: ImageIndices | None = None

    def at(self, images: slice) -> "Part":
        """Some of the images, in all views."""
        mask = None if self.mask is None else self.mask[:, images]
        rows = None if self.rows is None else self.rows[images]
        return Part(self.pixels[:, images], mask, self.token, rows)

    def split(self, count: int) -> "list[Part]":
        """All of the images, at most ``count`` at a time, in parts as even as can be."""
        images = self.pixels.shape[1]
        parts = -(-images // count)
        ends = [images * number // parts for number in range(parts + 1)]
        return [self.at(slice(*bounds)) for bounds in pairwise(ends)]


class Viewed(NamedTuple):
    """What the network says of all views.

    Attributes:
        features: (v, b, f).
        projections: (v, b, d); the features where there is no projection head.
        tokens: (v, b, t, f), or None where the encoder has no patches.
    """

    features: Projections
    projections: Projections
    tokens: Tokens | None

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Viewed":
        """The same, with every tensor that is there changed."""
        tokens = None if self.tokens is None else change(self.tokens)
        return Viewed(change(self.features), change(self.projections), tokens)


Network: TypeAlias = Callable[[Part], Viewed]
"""Runs the network once."""

Way: TypeAlias = Callable[[Network, Part], Viewed]
"""How the network is run on all images: not at once, or on this process's share."""


class Learner(nn.Module):
    """Encoder, projection head and the objective's own module, trained together.

    Args:
        encoder: Gives features.
        projector: From features to projections.
        module: What the objective's ``build`` returned.

    Attributes:
        way: How all images of a batch are run; None runs them at once.
        channels_last: Whether pixels are laid out with their channels side by side.
    """

    way: Way | None = None
    channels_last: bool = False

    def __init__(
        self, encoder: Encoder, projector: nn.Module, module: nn.Module | None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.module = module

    def forward(
        self, pixels: torch.Tensor, mask: Mask | None = None, token: torch.Tensor | None = None
    ) -> Viewed:
        """Encode all views of all images in the learner's way.

        Args:
            pixels: (v, b, c, h, w) float in [0, 1].
            mask: Patches that are hidden, or None.
            token: What stands in their place; None drops them.
        """
        part = Part(pixels, mask, token)
        return self.encode(part) if self.way is None else self.way(self.encode, part)

    def encode(self, part: Part) -> Viewed:
        """Encode all views in one pass, so that batch norm sees them together."""
        v, b = part.pixels.shape[:2]
        hidden = None if part.mask is None else Hidden(part.mask.flatten(0, 1), part.token)
        pixels = part.pixels.flatten(0, 1)
        if self.channels_last:
            pixels = _channels_last(pixels)
        features, tokens = self.encoder.encode(pixels, hidden)
        projections = self.projector(features)
        return Viewed(
            features.reshape(v, b, -1),
            projections.reshape(v, b, -1),
            None if tokens is None else tokens.reshape(v, b, *tokens.shape[1:]),
        )


@dataclass
class State:
    """What changes from step to step.

    Attributes:
        learner: What is trained.
        optimiser: Over all parameters of ``learner``.
        teacher: Averaged copy of encoder and projection head that the objective learns from;
            of the objective's module too where that is needed.
        average: Averaged copy of the learner that is saved at the end.
        step: Steps done.
        seconds: Time spent on them, over all starts of the run.
        metrics_bytes: Length of ``metrics.jsonl`` after them.
        groups: What batches are made of now; None draws them freely.
    """

    learner: Learner
    optimiser: torch.optim.Optimizer
    teacher: Learner | None
    average: Learner | None
    step: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0
    groups: Groups | None = None

    def to_dict(self) -> dict[str, object]:
        """Everything, as tensors and plain values; the global torch generators included."""
        modules = {"learner": self.learner, "teacher": self.teacher, "average": self.average}
        return {
            **{name: None if m is None else m.state_dict() for name, m in modules.items()},
            "normalisation": {k: self.learner.encoder.config[k] for k in ("mean", "std")},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "metrics_bytes": self.metrics_bytes,
            "generators": _generators(),
            "groups": None if self.groups is None else tuple(self.groups),
        }

    def load_dict(self, values: dict[str, object]) -> None:
        """Restore what ``to_dict`` gave, in place."""
        for name in ("learner", "teacher", "average"):
            module = getattr(self, name)
            if module is not None:
                module.load_state_dict(values[name])
                # Checkpoints of earlier versions leave it as the data have it.
                module.encoder.normalise_by(values.get("normalisation", {}))
        self.optimiser.load_state_dict(values["optimiser"])  # type: ignore[arg-type]
        self.step = int(values["step"])  # type: ignore[call-overload]
        self.seconds = float(values["seconds"])  # type: ignore[arg-type]
        self.metrics_bytes = int(values["metrics_bytes"])  # type: ignore[call-overload]
        groups = values.get("groups")
        self.groups = None if groups is None else Groups(*groups)  # type: ignore[misc]
        _set_generators(values["generators"])  # type: ignore[arg-type]

    def final(self) -> Learner:
        """The weights that the run is for: the averaged ones where there are any."""
        return self.average or self.learner


def build_state(
    recipe: Recipe,
    objective: Objective,
    images: TrainingImages,
    device: torch.device,
    *,
    anew: bool = True,
) -> State:
    """Build everything at step 0, with initial weights that depend on the seed alone.

    Args:
        recipe: What is trained, and how.
        objective: May bring a module of its own.
        images: Give size and channels, and the normalisation of an encoder that starts anew.
        device: Where everything is put.
        anew: Whether the finished encoder of ``initial`` is read; a checkpoint replaces it.

    Raises:
        InvalidInput: If an argument of the encoder is wrong, the objective needs patches and
            the encoder has none, or the initial weights are another encoder's.
        NotFound: If there are no initial weights where the recipe says.
    """
    encoder = _encoder(recipe, images, anew)
    if objective.needs & {"tokens", "mask", "teacher_blocks"} and not encoder.has_tokens:
        raise InvalidInput(
            f"expected an encoder with patch tokens for {recipe.objective.name!r}, "
            f"got {recipe.encoder.name!r}; use 'vit'"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(recipe.seed, "heads", 0))
        projector, dim = _projector(recipe, objective, encoder.feature_dim)
        module = objective.build(_sizes(dim, encoder, images))
    learner = Learner(encoder, projector, module).to(device).train()
    if isinstance(objective, Prepared) and module is not None:
        objective.prepare(module, images.embeddings)
    if recipe.run.channels_last and not _is_narrow(learner):
        learner.channels_last = True
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return State(
        learner,
        build_optimiser(recipe.optimiser, learner),
        _teacher(learner, objective),
        _frozen_copy(learner) if recipe.run.ema else None,
    )


def _sizes(dim: int, encoder: Encoder, images: TrainingImages) -> Sizes:
    spec = images.spec
    return Sizes(
        dim,
        encoder.feature_dim,
        classes=len(images.class_names) if images.labels is not None else 0,
        images=len(images),
        image_shape=(spec.height, spec.width, spec.channels),
        grid=encoder.grid,
        patch=encoder.patch,
        embedding_dims=tuple(e.shape[1] for e in images.embeddings),
    )


def _channels_last(pixels: torch.Tensor) -> torch.Tensor:
    """The same (n, c, h, w) with the channels of a pixel side by side in memory.

    With one channel both orders are the same bytes, and torch takes them for channels-first
    unless the strides say otherwise: the whole network would then run in that order.
    """
    if pixels.shape[1] == 1:
        return pixels.contiguous().squeeze(1).unsqueeze(-1).permute(0, 3, 1, 2)
    return pixels.contiguous(memory_format=torch.channels_last)


def _is_narrow(learner: Learner) -> bool:
    """Whether channels-last would be unsafe, and of no use either.

    On processors without AVX-512, oneDNN's backward pass of a strided 1x1 convolution with
    fewer than 8 channels in that order writes past the end of its memory (torch 2.13).
    """
    return any(
        isinstance(m, nn.Conv2d)
        and m.kernel_size == (1, 1)
        and m.stride != (1, 1)
        and m.in_channels < _CHANNEL_BLOCK
        for m in learner.modules()
    )


def _teacher(learner: Learner, objective: Objective) -> Learner | None:
    """A copy of what the objective's targets come from, or None."""
    if not objective.needs & {"teacher", "teacher_module", "teacher_blocks"}:
        return None
    module = learner.module if "teacher_module" in objective.needs else None
    teacher = Learner(learner.encoder, learner.projector, module)
    teacher.channels_last = learner.channels_last
    return _frozen_copy(teacher)


def _encoder(recipe: Recipe, images: TrainingImages, anew: bool) -> Encoder:
    config = {
        "mean": list(images.mean),
        "std": list(images.std),
        **recipe.encoder.arguments,
        "name": recipe.encoder.name,
        "input": images.spec.to_dict(),
    }
    encoder = build_encoder(config, seed=seed_of(recipe.seed, "encoder", 0))
    if recipe.initial and anew:
        load_weights(encoder, Path(recipe.initial) / "encoder.safetensors")
        left = {"mean", "std"} - recipe.encoder.arguments.keys()
        finished = load_normalisation(Path(recipe.initial)) if left else {}
        encoder.normalise_by({name: finished[name] for name in left})
    return encoder


def _projector(recipe: Recipe, objective: Objective, dim: int) -> tuple[nn.Module, int]:
    """The head and the dimensions that come out of it."""
    if "projections" not in objective.needs:
        return nn.Identity(), dim
    head = recipe.projection
    module = projection_head(dim, head.hidden, head.dim, layers=head.layers, norm=head.norm)
    return module, head.dim


def _frozen_copy(learner: Learner) -> Learner:
    return copy.deepcopy(learner).requires_grad_(False)


def _generators() -> dict[str, torch.Tensor]:
    """States of the global generators, which dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
