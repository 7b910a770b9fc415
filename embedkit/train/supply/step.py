"""Supply: what an objective declared that it needs, made for one step."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional

from embedkit.perturb.augmentation import mixed_views
from embedkit.train.batch import Batch, ImageIndices, Mask, Shares, Transformed
from embedkit.train.images import TrainingImages
from embedkit.train.learner import Learner, Part, State, Viewed
from embedkit.train.objective import Masking, Objective, Opposed, Transforming
from embedkit.train.supply.adversarial import far_features, mislead
from embedkit.train.supply.augment import Augment

__all__ = ["Drawn", "Supply"]


class Drawn(NamedTuple):
    """The random input of one step.

    Attributes:
        images: The images as they are, (b, c, h, w) in [0, 1].
        views: What is encoded whole, and what the objective noted of it.
        local: Small crops, (l, b, c, h', w'), or None.
        targets: Shares of the classes in the views before the objective changes them,
            (v, b, c); no classes if it needs none.
    """

    images: torch.Tensor
    views: Transformed
    local: torch.Tensor | None
    targets: Shares


@dataclass(frozen=True)
class Supply:
    """Draws views and runs the networks as one objective needs them.

    Attributes:
        objective: Declares what it needs.
        images: Training images with their labels and embeddings.
        augment: Makes the views.
    """

    objective: Objective
    images: TrainingImages
    augment: Augment

    @torch.no_grad()
    def draw(
        self, learner: Learner, indices: torch.Tensor, generator: torch.Generator
    ) -> Drawn:
        """Augmented views of the images at ``indices``."""
        objective = self.objective
        pixels = learner.encoder.to_unit(self.images.images[indices])
        changes = objective if isinstance(objective, Transforming) else None
        count = objective.views if changes is None else changes.drawn
        shares = self._shares(pixels, indices)
        plain, targets = mixed_views(pixels, shares, self.augment.whole, count, generator)
        whole = Transformed(plain) if changes is None else changes.transform(plain, generator)
        return Drawn(pixels, whole, self._local(pixels, generator), targets)

    def batch(
        self,
        state: State,
        drawn: Drawn,
        indices: torch.Tensor,
        generator: torch.Generator,
        progress: float,
    ) -> Batch:
        """Run student and teacher on what was drawn, and gather everything."""
        needs, learner = self.objective.needs, state.learner
        pixels = self._misled(learner, drawn.views.views, generator)
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
            targets=drawn.targets if "targets" in needs else None,
            indices=indices if "indices" in needs else None,
            teacher=teacher,
            teacher_module=state.teacher.module if state.teacher is not None else None,
            teacher_blocks=blocks,
            tokens=student.tokens if "tokens" in needs else None,
            mask=mask,
            local=self._small(learner, drawn, student.projections),
            adversarial=self._opposed(learner, pixels, generator),
            images=drawn.images if "images" in needs else None,
            pixels=pixels if "pixels" in needs else None,
            notes=drawn.views.notes,
            embeddings=tuple(e[indices] for e in embeddings) if embeddings else None,
            generator=generator,
            progress=progress,
        )

    def _shares(self, pixels: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """The labels as one share of 1 per image, (b, c); (b, 0) where nobody needs them."""
        labels = self.images.labels
        if "targets" not in self.objective.needs or labels is None:
            return pixels.new_empty(len(pixels), 0)
        classes = len(self.images.class_names)
        return functional.one_hot(labels[indices], classes).to(pixels.dtype)

    def _local(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """Small crops, where the objective compares them and the recipe asks for some."""
        if "local" not in self.objective.needs or not self.augment.settings.local:
            return None
        return self.augment.crops(pixels, generator)

    def _small(
        self, learner: Learner, drawn: Drawn, whole: torch.Tensor
    ) -> torch.Tensor | None:
        """Projections of the small crops; none of them are an empty tensor."""
        if "local" not in self.objective.needs:
            return None
        return whole[:0] if drawn.local is None else learner(drawn.local).projections

    def _misled(
        self, learner: Learner, pixels: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """The whole views, the last one adversarial where the recipe wants that."""
        adversary, last = self.augment.adversary, len(pixels) - 1
        if adversary is None:
            return pixels
        changed = mislead(learner, pixels, last, adversary, far_features(last), generator)
        return torch.cat([pixels[:last], changed.unsqueeze(0)])

    def _opposed(
        self, learner: Learner, pixels: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor | None:
        """Projections of the first view as the objective's own adversary changes it."""
        objective = self.objective
        if "adversarial" not in objective.needs or not isinstance(objective, Opposed):
            return None

        def harm(changed: Viewed, clean: Viewed, rows: ImageIndices) -> torch.Tensor:
            projections = changed.projections[0]
            return objective.harm(projections, clean.projections, rows, learner.module)

        changed = mislead(learner, pixels, 0, objective.adversary, harm, generator)
        viewed: Viewed = learner(changed.unsqueeze(0))
        return viewed.projections

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
            blocks = _blocks(teacher, pixels)
        return teacher(pixels).projections if "teacher" in needs else None, blocks


def _blocks(teacher: Learner, pixels: torch.Tensor) -> torch.Tensor:
    """The tokens after every block, (v, b, blocks, t, f), found in the teacher's way."""

    def network(part: Part) -> Viewed:
        flat = teacher.encoder.encode_blocks(part.pixels.flatten(0, 1))
        found = flat.reshape(*part.pixels.shape[:2], *flat.shape[1:])
        # They travel in the place of features, to be joined and gathered as these are.
        return Viewed(found, found.flatten(2)[:, :, :1], None)

    part = Part(pixels)
    return (network(part) if teacher.way is None else teacher.way(network, part)).features
