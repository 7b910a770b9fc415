"""Models trained elsewhere as the source of an export."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import torch

from embedkit.bundle import Head
from embedkit.encoders.encoder import Encoder, build_encoder, encoders
from embedkit.errors import InvalidInput
from embedkit.export.source import Source
from embedkit.export.state_dict import State, match_state, read_state
from embedkit.preprocess import InputSpec

__all__ = ["Architecture", "import_torch"]


@dataclass(frozen=True)
class Architecture:
    """Which encoder foreign weights belong to, as the command line says it.

    Attributes:
        encoder: Name of a preset such as ``resnet20``, ``NAME:PRESET`` such as ``vit:tiny``, or
            a JSON object of everything ``build_encoder`` takes.
        size: Height, width and channels; None where the JSON has an ``input`` block.
        mean: Per channel, in [0, 1] units; None where the JSON has it.
        std: Per channel, in [0, 1] units; None where the JSON has it.
    """

    encoder: str
    size: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def build(self) -> Encoder:
        """Return the encoder, freshly initialised.

        Raises:
            InvalidInput: If something is missing or wrong.
        """
        config = _config(self.encoder)
        if self.size is not None:
            config["input"] = InputSpec(*self.size).to_dict()
        config |= {
            key: list(value)
            for key, value in (("mean", self.mean), ("std", self.std))
            if value is not None
        }
        # Wrong constants give a model that runs and is a little wrong: never guess them.
        for key, option in (("input", "--input"), ("mean", "--mean"), ("std", "--std")):
            if key not in config:
                raise InvalidInput(
                    f"expected {key!r} of the imported model, got none; give {option}, "
                    "as the model was trained"
                )
        return build_encoder(config)


def import_torch(
    path: str | Path,
    architecture: Architecture,
    *,
    head_keys: tuple[str, str] | None = None,
    class_names: Sequence[str] | None = None,
    mapping: str | Path | None = None,
    licence: str = "",
) -> Source:
    """Read weights into an encoder; a linear classifier among them becomes its head.

    Args:
        path: ``.safetensors``, or ``.pt``/``.pth`` with plain tensors.
        architecture: What the weights belong to.
        head_keys: Names of the classifier's weight (c, d) and bias (c,) in the file; by default
            found by their shapes.
        class_names: One per class; by default the indices as text.
        mapping: JSON file of the file's names to the encoder's, where they cannot be matched.
        licence: SPDX identifier of the weights.

    Raises:
        NotFound: If there is no such file.
        InvalidInput: If weights, architecture, classifier or class names do not fit together.
    """
    encoder = architecture.build()
    foreign = read_state(path)
    taken = {} if head_keys is None else {key: foreign.pop(key, None) for key in head_keys}
    absent = [key for key, value in taken.items() if value is None]
    if absent:
        raise InvalidInput(
            f"expected the head keys {absent} in {path}, got {sorted(foreign)[:8]}"
        )
    state, rest = match_state(foreign, encoder.state_dict(), mapping=mapping)
    encoder.load_state_dict(state)
    given = {key: value for key, value in taken.items() if value is not None}
    head = _head(given or rest, encoder.feature_dim, class_names)
    unplaced = {**given, **rest} if head is None else rest if given else {}
    # Whoever writes a mapping has decided what to leave out.
    if unplaced and not (mapping and not given):
        raise InvalidInput(
            f"expected every tensor of {path} to belong to the encoder or to one linear "
            f"classifier on {encoder.feature_dim} features, got also {sorted(unplaced)[:8]}; "
            "name the classifier with --head-keys, or what to take with --mapping FILE"
        )
    return Source(
        encoder=encoder,
        origin="Trained elsewhere, imported from PyTorch weights.",
        head=head,
        licence=licence,
    )


def _config(text: str) -> dict[str, object]:
    """What ``build_encoder`` takes, as far as the text of ``--encoder`` says."""
    if text.lstrip().startswith("{"):
        try:
            config = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"expected JSON as --encoder, got {text!r}: {error}") from error
        return dict(config)
    name, _, preset = text.partition(":")
    if preset:
        return {"name": name, "preset": preset}
    if name in encoders.names():
        return {"name": name}
    owners = {known: _presets(known) for known in encoders.names()}
    found = [known for known, presets in owners.items() if name in presets]
    if len(found) != 1:
        known = ", ".join(
            f"{key}:{preset}" for key, values in owners.items() for preset in values
        )
        raise InvalidInput(f"expected --encoder as one of {known}, or JSON, got {text!r}")
    return {"name": found[0], "preset": name}


def _presets(name: str) -> tuple[str, ...]:
    """Presets of an architecture, read from the type of its argument of that name."""
    return tuple(get_args(get_type_hints(encoders.get(name)).get("preset")))


def _head(given: State, dim: int, class_names: Sequence[str] | None) -> Head | None:
    """The linear classifier on ``dim`` features among the tensors, if there is exactly one."""
    if not given:
        return None
    weights = [value for value in given.values() if value.ndim == 2 and value.shape[1] == dim]
    biases = [value for value in given.values() if value.ndim == 1]
    if len(weights) != 1 or len(biases) > 1 or len(given) != 1 + len(biases):
        return None
    weight = _array(weights[0])
    bias = _array(biases[0]) if biases else np.zeros(len(weight), np.float32)
    names = [str(i) for i in range(len(weight))] if class_names is None else class_names
    if len(names) != len(weight):
        raise InvalidInput(
            f"expected {len(weight)} class names for the classifier, got {len(names)}: "
            f"{', '.join(names[:12])}"
        )
    return Head(weight, bias, tuple(names))


def _array(tensor: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(tensor.detach().float().numpy(), np.float32)
