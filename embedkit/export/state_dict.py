"""Foreign weights: a state dict read without running code, and its names matched to ours."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from embedkit.errors import InvalidInput, NotFound

__all__ = ["State", "match_state", "read_state"]

State = dict[str, torch.Tensor]

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "net.")
# Counts batches while training; nothing at inference reads it.
_IGNORED = "num_batches_tracked"


def read_state(path: str | Path) -> State:
    """Read the tensors of a ``.safetensors``, ``.pt`` or ``.pth`` file, in its order.

    ``.pt`` files are read with ``weights_only``: one that holds code is an error.

    Raises:
        NotFound: If there is no such file.
        InvalidInput: If it is not a plain collection of named tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise NotFound(f"expected a file of weights, got {str(path)!r}, which does not exist")
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise InvalidInput(f"expected weights in {file}, got {error}") from error
    except Exception as error:  # UnpicklingError, and whatever a damaged pickle leads to.
        raise InvalidInput(
            f"expected plain tensors in {file}, got what is no file of tensors alone "
            f"({type(error).__name__}); save model.state_dict() as safetensors"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise InvalidInput(f"expected a state dict in {file}, got {type(loaded).__name__}")
    return {str(name): value for name, value in loaded.items()}


def match_state(
    foreign: State, own: Mapping[str, torch.Tensor], *, mapping: str | Path | None = None
) -> tuple[State, State]:
    """Give foreign tensors the names of an encoder's state dict.

    Names are taken from ``mapping`` if given, else compared without prefixes such as
    ``module.``; where no name agrees, tensors are paired in their order, and then shape and
    last part of the name (``weight``, ``running_mean``, ...) must agree for every pair.

    Args:
        foreign: What the file holds, in its order.
        own: The encoder's ``state_dict()``.
        mapping: JSON file of foreign name to own name.

    Returns:
        The complete state for the encoder, and the foreign tensors left over.

    Raises:
        InvalidInput: Lists what is missing and what has another shape.
    """
    wanted = {name: value for name, value in own.items() if not name.endswith(_IGNORED)}
    given = {name: value for name, value in foreign.items() if not name.endswith(_IGNORED)}
    names = _read_mapping(mapping, given, wanted) if mapping else _by_name(given, wanted)
    if not names:
        names = _by_order(given, wanted)
    matched = {own_name: given[name] for name, own_name in names.items()}
    missing = [name for name in wanted if name not in matched]
    shapes = [
        f"{name}: expected {tuple(wanted[name].shape)}, got {tuple(value.shape)}"
        for name, value in matched.items()
        if value.shape != wanted[name].shape
    ]
    if missing or shapes:
        left = [name for name in given if name not in names]
        raise InvalidInput(
            f"expected weights for {len(wanted)} tensors of the encoder, got {len(matched)}; "
            f"missing: {_some(missing)}; of another shape: {_some(shapes)}; "
            f"not used: {_some(left)}; choose another --encoder or give --mapping FILE"
        )
    rest = {name: value for name, value in given.items() if name not in names}
    untouched = {name: value for name, value in own.items() if name not in wanted}
    return {**untouched, **{name: value.float() for name, value in matched.items()}}, rest


def _by_name(given: State, wanted: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Foreign name to own name, where both are equal without their prefixes."""
    bare = {_bare(name): name for name in wanted}
    names = {name: bare[_bare(name)] for name in given if _bare(name) in bare}
    claims: dict[str, list[str]] = {}
    for name, own_name in names.items():
        claims.setdefault(own_name, []).append(name)
    for own_name, claimed in claims.items():
        if len(claimed) > 1:
            raise InvalidInput(
                f"expected one tensor for {own_name} of the encoder, got "
                f"{_some(claimed)}, which are the same without their prefixes; say which with "
                "--mapping FILE"
            )
    return names


def _by_order(given: State, wanted: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Foreign name to own name by position; nothing unless every pair is plausible."""
    pairs = list(zip(given, wanted, strict=False))
    plausible = len(given) >= len(wanted) and all(
        given[a].shape == wanted[b].shape and a.rsplit(".", 1)[-1] == b.rsplit(".", 1)[-1]
        for a, b in pairs
    )
    return dict(pairs) if plausible else {}


def _read_mapping(
    path: str | Path, given: State, wanted: Mapping[str, torch.Tensor]
) -> dict[str, str]:
    try:
        names = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"expected a JSON mapping in {path}, got {error}") from error
    if not isinstance(names, dict):
        raise InvalidInput(f"expected a JSON object in {path}, got {type(names).__name__}")
    names = {a: str(b) for a, b in names.items() if not a.endswith(_IGNORED)}
    unknown = [a for a, b in names.items() if a not in given or b not in wanted]
    if unknown:
        raise InvalidInput(
            f"expected names of the file mapped to names of the encoder in {path}, got also "
            f"{_some(unknown)} (encoder: {_some(list(wanted))})"
        )
    return names


def _bare(name: str) -> str:
    """A name without the prefixes that wrappers add."""
    prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
    return name if prefix is None else _bare(name.removeprefix(prefix))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:6]) or "none"
    return shown + (f", ... ({len(names)} in all)" if len(names) > 6 else "")
