"""The number format that a network computes in, as the processor has it."""

from contextlib import AbstractContextManager

import torch

__all__ = ["autocast", "emulation_warning", "used_precision"]

_CPU_BF16 = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
"""Names under which torch reports that a processor multiplies bfloat16 itself."""


def used_precision(setting: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``: what a recipe's ``run.precision`` comes to on a device.

    Args:
        setting: ``fp32``, ``bf16``, or ``auto``: ``bf16`` where the device multiplies it.
        device: Where the network is.
    """
    if setting != "auto":
        return setting
    return "bf16" if _has_bf16(device) else "fp32"


def autocast(setting: str, device: torch.device) -> AbstractContextManager[None]:
    """The context in which the network runs; it does nothing for ``fp32``."""
    is_bf16 = used_precision(setting, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16 if is_bf16 else None, enabled=is_bf16)


def emulation_warning(setting: str, device: torch.device) -> str:
    """What to say of a precision that the device only emulates; empty if it does not."""
    if used_precision(setting, device) != "bf16" or _has_bf16(device):
        return ""
    return (
        "run.precision is bf16, which this processor emulates, many times slower than float32; "
        "set run.precision='auto' or 'fp32'"
    )


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in _CPU_BF16)
