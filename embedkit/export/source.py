"""What an export starts from: an encoder with weights, and where it comes from."""

from dataclasses import dataclass, field

from embedkit.bundle import Head
from embedkit.encoders.encoder import Encoder

__all__ = ["Source"]


@dataclass(frozen=True)
class Source:
    """A trained encoder, from a run or from elsewhere.

    Attributes:
        encoder: With its weights.
        objective: Name of the objective that trained it, or ``external``.
        origin: One sentence for the model card; no paths.
        head: The model's own classifier, or None.
        recipe: Content of ``recipe.toml``; empty without one.
        data: DATA string of the training images; empty if unknown.
        data_digest: Content digest of the training images; empty if unknown.
        licence: SPDX identifier of the weights; empty if unknown.
        facts: What else the model card should say, by name.
    """

    encoder: Encoder
    objective: str = "external"
    origin: str = ""
    head: Head | None = None
    recipe: bytes = b""
    data: str = ""
    data_digest: str = ""
    licence: str = ""
    facts: dict[str, str] = field(default_factory=dict)
