"""Execution providers of onnxruntime: what a name asks for, and whether this machine has it."""

import logging
from collections.abc import Sequence

import onnxruntime

from embedkit.errors import InvalidInput

__all__ = ["CPU", "ON_CUDA", "PROVIDER_OPTIONS", "check_started", "choose_providers"]

log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
ON_CUDA = frozenset({_CUDA, _TENSORRT})
"""Providers whose arrays live on a CUDA device."""
# Each in its order of preference: what TensorRT cannot run, CUDA can.
_SHORT = {"cpu": (CPU,), "cuda": (_CUDA,), "tensorrt": (_TENSORRT, _CUDA)}
# TF32 keeps 10 bits of mantissa and would miss the golden embeddings by 1e-3.
PROVIDER_OPTIONS = {_CUDA: {"use_tf32": "0"}}


def choose_providers(
    names: Sequence[str] | None = None, *, allow_cpu_fallback: bool = False
) -> list[str]:
    """Return onnxruntime's names of the providers to use, in order of preference.

    Args:
        names: ``cpu``, ``cuda``, ``tensorrt``, or onnxruntime's own names; None for the CPU.
        allow_cpu_fallback: Whether the CPU takes the place of a provider that is missing, with
            a warning in the log.

    Raises:
        InvalidInput: If one is not installed, or none is given.
    """
    available = onnxruntime.get_available_providers()
    given = [*names] if names is not None else [CPU]
    wanted = [name for short in given for name in _SHORT.get(short.lower(), (short,))]
    missing = [name for name in wanted if name not in available]
    if not wanted or (missing and not allow_cpu_fallback):
        raise InvalidInput(
            f"expected execution providers of {available}, got {wanted}; CUDAExecutionProvider "
            "comes with embedkit[gpu]; --allow-cpu-fallback takes the CPU instead"
        )
    if missing:
        log.warning("%s is not installed; running on the CPU instead", ", ".join(missing))
    return [name for name in wanted if name in available] or [CPU]


def check_started(
    wanted: Sequence[str], started: Sequence[str], *, allow_cpu_fallback: bool = False
) -> str:
    """Return the provider that a session really runs on.

    Args:
        wanted: As given to the session, the preferred one first.
        started: As the session says.
        allow_cpu_fallback: Whether another one than the preferred is accepted.

    Raises:
        InvalidInput: If the preferred one did not start, as without a driver.
    """
    if started[0] != wanted[0]:
        if not allow_cpu_fallback:
            raise InvalidInput(
                f"expected the provider {wanted[0]} to start, got {list(started)}; check its "
                "driver, ask for the CPU, or give --allow-cpu-fallback"
            )
        log.warning("%s did not start; running on %s instead", wanted[0], started[0])
    return started[0]
