"""Supply: what an objective declared that it needs, made for one step."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional

from embedkit.perturb.augmentation import Augmentation, views
from embedkit.train.batch import Batch, Mask, Transformed
from embedkit.train.images import TrainingImages
from embedkit.train.learner import Learner, State
from embedkit.train.objective import Cropping, Masking, Objective, Transforming

__all__ = ["Drawn", "Supply"]


class Drawn(NamedTuple):
    """The random input of one step.

    Attributes:
        images: The images as they are, (b, c, h, w) in [0, 1].
        views: What is encoded whole, and what the objective noted of it.
        local: Small crops, (l, b, c, h', w'), or None.
    """

    images: torch.Tensor
    views: Transformed
    local: torch.Tensor | None


@dataclass(frozen=True)
class Supply:
    """Draws views and runs the networks as one objective needs them.

    Attributes:
        objective: Declares what it needs.
        images: Training images with their labels and embeddings.
        augment: Of whole views.
        augment_local: Of small crops.
    """

    objective: Objective
    images: TrainingImages
    augment: Augmentation
    augment_local: Augmentation

    @torch.no_grad()
    def draw(
        self, learner: Learner, indices: torch.Tensor, generator: torch.Generator
    ) -> Drawn:
        """Augmented views of the images at ``indices``."""
        objective = self.objective
        pixels = learner.encoder.to_unit(self.images.images[indices])
        if isinstance(objective, Transforming):
            plain = views(pixels, self.augment, objective.drawn, generator)
            whole = objective.transform(plain, generator)
        else:
            whole = Transformed(views(pixels, self.augment, objective.views, generator))
        return Drawn(pixels, whole, self._local(pixels, generator))

    def batch(
        self,
        state: State,
        drawn: Drawn,
        indices: torch.Tensor,
        generator: torch.Generator,
        progress: float,
    ) -> Batch:
        """Run student and teacher on what was drawn, and gather everything."""
        needs, pixels, learner = self.objective.needs, drawn.views.views, state.learner
        mask = self._mask(learner, pixels, generator)
        token = None
        if isinstance(self.objective, Masking) and learner.module is not None:
            token = self.objective.mask_token(learner.module)
        student = learner(pixels, mask, token)
        teacher, blocks = self._teach(state.teacher, pixels)
        labels, embeddings = self.images.labels, self.images.embeddings
        return Batch(
            student.projections,
            student.features,
            module=learner.module,
            labels=labels[indices] if labels is not None else None,
            indices=indices if "indices" in needs else None,
            teacher=teacher,
            teacher_module=state.teacher.module if state.teacher is not None else None,
            teacher_blocks=blocks,
            tokens=student.tokens if "tokens" in needs else None,
            mask=mask,
            local=learner(drawn.local).projections if drawn.local is not None else None,
            images=drawn.images if "images" in needs else None,
            pixels=pixels if "pixels" in needs else None,
            notes=drawn.views.notes,
            embeddings=tuple(e[indices] for e in embeddings) if embeddings else None,
            generator=generator,
            progress=progress,
        )

    def _local(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """Small crops, each at its own place and with its own colours."""
        if "local" not in self.objective.needs or not isinstance(self.objective, Cropping):
            return None
        crops = self.objective.crops
        drawn = views(pixels, self.augment_local, crops.count, generator)
        size = [max(1, round(crops.side * side)) for side in pixels.shape[2:]]
        small = functional.interpolate(drawn.flatten(0, 1), size, mode="area")
        return small.reshape(crops.count, len(pixels), *small.shape[1:])

    def _mask(
        self, learner: Learner, pixels: torch.Tensor, generator: torch.Generator
    ) -> Mask | None:
        """Which patches the student is not shown, (v, b, t)."""
        if "mask" not in self.objective.needs or not isinstance(self.objective, Masking):
            return None
        v, b = pixels.shape[:2]
        hidden = self.objective.hide(learner.encoder.grid, v * b, generator)
        return hidden.reshape(v, b, -1)

    @torch.no_grad()
    def _teach(
        self, teacher: Learner | None, pixels: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The teacher's projections and its tokens after every block, as far as needed."""
        if teacher is None:
            return None, None
        needs, blocks = self.objective.needs, None
        if "teacher_blocks" in needs:
            flat = teacher.encoder.encode_blocks(pixels.flatten(0, 1))
            blocks = flat.reshape(*pixels.shape[:2], *flat.shape[1:])
        return teacher(pixels).projections if "teacher" in needs else None, blocks
