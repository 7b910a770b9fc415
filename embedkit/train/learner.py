"""Learner: everything that one run trains, and everything a checkpoint must hold."""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from embedkit.encoders.encoder import Encoder, build_encoder
from embedkit.encoders.heads import projection_head
from embedkit.errors import InvalidInput
from embedkit.train.images import TrainingImages, seed_of
from embedkit.train.objective import Objective, Projections, Sizes, Tokens
from embedkit.train.optim import build_optimiser
from embedkit.train.recipe import Recipe

__all__ = ["Learner", "State", "Viewed", "build_state"]


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


class Learner(nn.Module):
    """Encoder, projection head and the objective's own module, trained together.

    Args:
        encoder: Gives features.
        projector: From features to projections.
        module: What the objective's ``build`` returned.
    """

    def __init__(
        self, encoder: Encoder, projector: nn.Module, module: nn.Module | None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.module = module

    def forward(self, pixels: torch.Tensor) -> Viewed:
        """Encode all views in one pass, so that batch norm sees them together.

        Args:
            pixels: (v, b, c, h, w) float in [0, 1].
        """
        v, b = pixels.shape[:2]
        features, tokens = self.encoder.encode(pixels.flatten(0, 1))
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
        teacher: Averaged copy of encoder and projection head that the objective learns from.
        average: Averaged copy of the learner that is saved at the end.
        step: Steps done.
        seconds: Time spent on them, over all starts of the run.
        metrics_bytes: Length of ``metrics.jsonl`` after them.
    """

    learner: Learner
    optimiser: torch.optim.Optimizer
    teacher: Learner | None
    average: Learner | None
    step: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0

    def to_dict(self) -> dict[str, object]:
        """Everything, as tensors and plain values; the global torch generators included."""
        modules = {"learner": self.learner, "teacher": self.teacher, "average": self.average}
        return {
            **{name: None if m is None else m.state_dict() for name, m in modules.items()},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "metrics_bytes": self.metrics_bytes,
            "generators": _generators(),
        }

    def load_dict(self, values: dict[str, object]) -> None:
        """Restore what ``to_dict`` gave, in place."""
        for name in ("learner", "teacher", "average"):
            module = getattr(self, name)
            if module is not None:
                module.load_state_dict(values[name])
        self.optimiser.load_state_dict(values["optimiser"])  # type: ignore[arg-type]
        self.step = int(values["step"])  # type: ignore[call-overload]
        self.seconds = float(values["seconds"])  # type: ignore[arg-type]
        self.metrics_bytes = int(values["metrics_bytes"])  # type: ignore[call-overload]
        _set_generators(values["generators"])  # type: ignore[arg-type]

    def final(self) -> Learner:
        """The weights that the run is for: the averaged ones where there are any."""
        return self.average or self.learner


def build_state(
    recipe: Recipe, objective: Objective, images: TrainingImages, device: torch.device
) -> State:
    """Build everything at step 0, with initial weights that depend on the seed alone.

    Raises:
        InvalidInput: If an argument of the encoder is wrong, or the objective needs tokens and
            the encoder has none.
    """
    encoder = _encoder(recipe, images)
    if "tokens" in objective.needs and not encoder.has_tokens:
        raise InvalidInput(
            f"expected an encoder with patch tokens for {recipe.objective.name!r}, "
            f"got {recipe.encoder.name!r}; use 'vit'"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(recipe.seed, "heads", 0))
        projector, dim = _projector(recipe, objective, encoder.feature_dim)
        classes = len(images.class_names) if images.labels is not None else 0
        module = objective.build(Sizes(dim, encoder.feature_dim, classes, len(images)))
    learner = Learner(encoder, projector, module).to(device).train()
    if recipe.run.channels_last:
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    needs_teacher = "teacher" in objective.needs
    return State(
        learner,
        build_optimiser(recipe.optimiser, learner),
        _frozen_copy(Learner(encoder, projector, None)) if needs_teacher else None,
        _frozen_copy(learner) if recipe.run.ema else None,
    )


def _encoder(recipe: Recipe, images: TrainingImages) -> Encoder:
    config = {
        "mean": list(images.mean),
        "std": list(images.std),
        **recipe.encoder.arguments,
        "name": recipe.encoder.name,
        "input": images.spec.to_dict(),
    }
    return build_encoder(config, seed=seed_of(recipe.seed, "encoder", 0))


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
