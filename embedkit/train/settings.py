"""The sections of a recipe, each a frozen value that checks its own ranges."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from embedkit.errors import InvalidInput

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "DataSection",
    "Named",
    "OptimiserSection",
    "ProjectionSection",
    "RunSection",
    "SamplingSection",
    "ScheduleSection",
    "ViewsSection",
    "written",
]

LARGEST = 1e30
"""A float32 holds this much and not much more; such a rate diverges, and the run says so."""

T = TypeVar("T")


def added(default: T) -> T:
    """A setting that older recipes do not have, and whose default is what was done then.

    Such a default is not written out, so that a recipe keeps its text and its digest.
    """
    made: T = field(default=default, metadata={"added": True})
    return made


def written(section: "DataclassInstance") -> dict[str, Any]:
    """The settings of a section as a recipe's text has them."""
    values = ((f, getattr(section, f.name)) for f in fields(section))
    return {
        f.name: value
        for f, value in values
        if not (f.metadata.get("added") and value == f.default)
    }


@dataclass(frozen=True)
class DataSection:
    """What is trained on.

    Attributes:
        source: A DATA string: ``digits``, a folder, ``FILE.npz``, ...; its train split.
        limit: Use only the first images, this many; 0 uses all.
        strict: Refuse data with an unreadable file, instead of leaving the file out.
        stream: Read images as training goes on, from a folder or FILE.npy that need not fit
            into memory; the normalisation is then that of 4,096 of the images.
        stream_mb: Megabytes of decoded images that wait for their turn.
    """

    source: str
    limit: int = 0
    strict: bool = False
    stream: bool = added(False)
    stream_mb: int = added(256)

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check(self.limit >= 0, "data.limit to be at least 0", self.limit)
        _check(self.stream_mb >= 1, "data.stream_mb to be at least 1", self.stream_mb)


@dataclass(frozen=True)
class SamplingSection:
    """Which images are trained on, and which of them share a batch.

    Attributes:
        batches: ``shuffled``; ``hard_negatives`` (NGAME: whole small clusters of similar
            images) or ``distinct_clusters`` (G-SimCLR: images of different clusters), by the
            encoder's own features. The first ``refresh_epochs`` are shuffled.
        refresh_epochs: Epochs between two clusterings.
        cluster_images: Images of a cluster of ``hard_negatives``; batches are whole clusters
            if their size is a multiple of it.
        clusters: Of ``distinct_clusters``, and of the subset ``similar``.
        subset: ``all`` images; of each cluster those most ``similar`` to the others (SAS);
            ``k_centre``, so that no image is far from one of them; or ``random``.
        subset_share: How many of them.
        proxy: Bundle folder of the finished model by whose embeddings they are chosen.
    """

    batches: Literal["shuffled", "hard_negatives", "distinct_clusters"] = added("shuffled")
    refresh_epochs: int = added(5)
    cluster_images: int = added(8)
    clusters: int = added(64)
    subset: Literal["all", "similar", "k_centre", "random"] = added("all")
    subset_share: float = added(0.8)
    proxy: str = added("")

    def __post_init__(self) -> None:
        """Check the ranges."""
        counts = (self.refresh_epochs, self.clusters)
        _check(min(counts) >= 1, "sampling.refresh_epochs and clusters above 0", counts)
        size = self.cluster_images
        _check(size >= 2, "sampling.cluster_images to be at least 2", size)
        share = self.subset_share
        _check(0 < share <= 1, "sampling.subset_share in (0, 1]", share)


@dataclass(frozen=True)
class Named:
    """One entry of a registry and its arguments."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ViewsSection:
    """What is made of an image beside its augmented whole views.

    Attributes:
        local: Small crops of each image beside the whole views (multi-crop), for objectives
            that compare them; worth their time for images of 64 px or more.
        local_area: Share of the image's area that one covers.
        local_side: Its side as a share of the image's, in (0, 1].
        adversarial_255: How far the last whole view of each image is changed so that its
            features move as far as they can, in steps of 1/255; 0 does not change it.
        adversarial_steps: Gradients taken for it, at least 1; one is FGSM, more are PGD.
        adversarial_norm: Norm in which the change is measured.
    """

    local: int = added(0)
    local_area: tuple[float, float] = added((0.05, 0.3))
    local_side: float = added(0.5)
    adversarial_255: float = added(0.0)
    adversarial_steps: int = added(1)
    adversarial_norm: Literal["linf", "l2"] = added("linf")

    def __post_init__(self) -> None:
        """Check the ranges."""
        low, high = self.local_area
        _check(self.local >= 0, "views.local to be at least 0", self.local)
        _check(
            0 < low <= high <= 1,
            "views.local_area as (lowest, highest) in (0, 1]",
            self.local_area,
        )
        _check(0 < self.local_side <= 1, "views.local_side in (0, 1]", self.local_side)
        radius, steps = self.adversarial_255, self.adversarial_steps
        _check(0 <= radius <= LARGEST, "views.adversarial_255 to be at least 0", radius)
        _check(steps >= 1, "views.adversarial_steps to be at least 1", steps)


@dataclass(frozen=True)
class ProjectionSection:
    """The head between the encoder's features and the objective; not exported.

    Attributes:
        layers: Linear layers, 1 or more.
        hidden: Width of the layers before the last.
        dim: Dimensions of a projection.
        norm: After each hidden layer.
    """

    layers: int = 2
    hidden: int = 256
    dim: int = 128
    norm: Literal["batch", "layer", "none"] = "batch"

    def __post_init__(self) -> None:
        """Check the ranges."""
        sizes = (self.layers, self.hidden, self.dim)
        _check(min(sizes) >= 1, "projection layers, hidden and dim to be at least 1", sizes)


@dataclass(frozen=True)
class OptimiserSection:
    """How gradients become steps. Norms and biases never decay.

    Attributes:
        name: ``adamw``, ``sgd`` or ``lars``.
        lr: Peak learning rate.
        weight_decay: Decoupled in AdamW, added to the gradient in SGD and LARS.
        momentum: Of SGD and LARS, in [0, 1).
        betas: Of AdamW.
        trust: LARS's ratio of a layer's step to its norm.
        clip_norm: Largest norm of the whole gradient; 0 does not clip.
        perturbation: Steps follow the gradient at the worst weights nearby: ``sam`` (one more
            pass per step) or ``amp`` (``perturbation_steps`` more passes); ``none`` does not.
        perturbation_radius: How far these weights may lie, as the l2 norm over all of them.
        perturbation_steps: Steps to them, at least 1; ``sam`` takes one.
    """

    name: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    trust: float = 1e-3
    clip_norm: float = 0.0
    perturbation: Literal["none", "sam", "amp"] = added("none")
    perturbation_radius: float = added(0.05)
    perturbation_steps: int = added(1)

    def __post_init__(self) -> None:
        """Check the ranges."""
        radius, steps = self.perturbation_radius, self.perturbation_steps
        _check(0 < radius <= LARGEST, "perturbation_radius to be above 0", radius)
        _check(steps >= 1, "perturbation_steps to be at least 1", steps)
        _check(
            self.perturbation == "amp" or steps == 1,
            "perturbation_steps to be 1 (perturbation = 'amp' takes more)",
            steps,
        )
        _check(0 < self.lr <= LARGEST, "optimiser.lr to be above 0 and at most 1e30", self.lr)
        decay = self.weight_decay
        _check(0 <= decay <= LARGEST, "optimiser.weight_decay in [0, 1e30]", decay)
        _check(0 <= self.trust <= LARGEST, "optimiser.trust in [0, 1e30]", self.trust)
        _check(0 <= self.momentum < 1, "optimiser.momentum in [0, 1)", self.momentum)
        _check(all(0 <= b < 1 for b in self.betas), "optimiser.betas in [0, 1)", self.betas)
        _check(self.clip_norm >= 0, "clip_norm to be at least 0", self.clip_norm)


@dataclass(frozen=True)
class ScheduleSection:
    """How long, and how the learning rate moves after a linear warm-up.

    Attributes:
        epochs: Passes over the data; what is left of each is left out where it makes no whole
            batch, or with ``accumulate`` no whole step.
        batch_size: Images per step, at least 2; each is seen in every view.
        warmup_epochs: Epochs of linear warm-up from 0; fractions count.
        final_lr: Learning rate at the end, as a fraction of the peak.
        max_steps: Ends sooner, after this many steps; 0 does not.
        accumulate: Batches whose gradients are averaged into one step, at least 1. Images are
            only compared within a batch; ``run.gradient_cache`` makes large batches instead.
        kind: ``cosine``; ``constant``; or ``infinite`` (half a cosine down to a rate that is
            held, then an exponential decay at the very end), whose held phase is the same
            however long the run is.
        cooldown: Share of the steps after the warm-up in which ``infinite`` comes down.
        constant_lr: Learning rate that ``infinite`` holds, as a fraction of the peak.
        anneal: Share of the steps after the warm-up for its decay to ``final_lr``.
    """

    epochs: int = 10
    batch_size: int = 256
    warmup_epochs: float = 1.0
    final_lr: float = 0.0
    max_steps: int = 0
    accumulate: int = added(1)
    kind: Literal["cosine", "constant", "infinite"] = added("cosine")
    cooldown: float = added(0.25)
    constant_lr: float = added(0.3)
    anneal: float = added(0.15)

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check(self.epochs >= 1, "schedule.epochs to be at least 1", self.epochs)
        _check(
            self.batch_size >= 2,
            "schedule.batch_size to be at least 2 (one image has no other to differ from)",
            self.batch_size,
        )
        warmup = self.warmup_epochs
        _check(0 <= warmup <= LARGEST, "warmup_epochs to be finite and at least 0", warmup)
        _check(0 <= self.final_lr <= 1, "schedule.final_lr in [0, 1]", self.final_lr)
        _check(self.max_steps >= 0, "schedule.max_steps to be at least 0", self.max_steps)
        _check(self.accumulate >= 1, "schedule.accumulate to be at least 1", self.accumulate)
        shares = (self.cooldown, self.anneal)
        _check(
            min(shares) >= 0 and sum(shares) <= 1,
            "schedule.cooldown and schedule.anneal of at least 0 that add up to at most 1",
            shares,
        )
        _check(0 < self.constant_lr <= 1, "constant_lr in (0, 1]", self.constant_lr)
        _check(
            self.kind != "infinite" or self.final_lr > 0 or self.anneal == 0,
            "schedule.final_lr above 0 for kind = 'infinite', whose decay is exponential; set "
            "final_lr=0.01, or anneal=0",
            self.final_lr,
        )


@dataclass(frozen=True)
class RunSection:
    """How the run computes and what it writes down.

    Attributes:
        precision: ``bf16`` runs the network under autocast; losses stay in float32. ``auto``
            does so where the device multiplies bfloat16 itself, and is ``fp32`` elsewhere.
        channels_last: Memory format of the network; not of one whose strided 1x1 convolutions
            read fewer than 8 channels.
        ema: Momentum of the averaged weights that are saved at the end, in [0, 1); 0 saves
            the last weights.
        log_steps: Steps between two lines of ``metrics.jsonl``.
        checkpoint_steps: Steps between two checkpoints; 0 writes one per epoch.
        gradient_cache: Images that the network is run on at a time, whatever the batch size:
            its memory grows with this number and not with the batch, for one more forward
            pass; 0 runs on all. Batch norm then sees this many images.
        compile: Whether ``torch.compile`` is used on the network.
        probe_steps: Steps between two looks at some of the images, for the online kNN (where
            there are labels) and the maps in the report; 0 looks at none.
        probe_images: How many are looked at.
        writers: Where each line of the metrics goes too: ``tensorboard``, ``wandb``.
    """

    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    channels_last: bool = True
    ema: float = 0.0
    log_steps: int = 20
    checkpoint_steps: int = 0
    gradient_cache: int = added(0)
    compile: bool = added(False)
    probe_steps: int = added(0)
    probe_images: int = added(1000)
    writers: tuple[Literal["tensorboard", "wandb"], ...] = added(())

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check(self.probe_steps >= 0, "run.probe_steps to be at least 0", self.probe_steps)
        _check(self.probe_images >= 2, "run.probe_images to be at least 2", self.probe_images)
        _check(0 <= self.ema < 1, "run.ema in [0, 1)", self.ema)
        _check(self.log_steps >= 1, "run.log_steps to be at least 1", self.log_steps)
        _check(
            self.checkpoint_steps >= 0,
            "checkpoint_steps to be at least 0",
            self.checkpoint_steps,
        )
        _check(
            self.gradient_cache >= 0,
            "run.gradient_cache to be at least 0",
            self.gradient_cache,
        )


def _check(is_right: bool, expected: str, got: object) -> None:
    if not is_right:
        raise InvalidInput(f"expected {expected}, got {got!r}")
