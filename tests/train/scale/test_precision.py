"""The precision of a run: chosen by the device, and said where it is only emulated."""

import platform

import pytest
import torch

from embedkit.train.scale.precision import autocast, emulation_warning, used_precision

CPU = torch.device("cpu")


def _listed() -> bool:
    """Whether the kernel lists bfloat16 instructions, read without torch."""
    with open("/proc/cpuinfo", encoding="ascii") as handle:
        flags = handle.read().split()
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc/cpuinfo")
def test_auto_is_what_the_processor_multiplies():
    assert used_precision("auto", CPU) == ("bf16" if _listed() else "fp32")


@pytest.mark.parametrize("setting", ["fp32", "bf16"])
def test_a_named_precision_is_kept(setting):
    assert used_precision(setting, CPU) == setting


@pytest.mark.parametrize(
    ("setting", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_products_have_the_type_of_the_precision(setting, dtype):
    with autocast(setting, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc/cpuinfo")
def test_emulation_is_said_and_nothing_else():
    assert emulation_warning("auto", CPU) == emulation_warning("fp32", CPU) == ""
    assert ("set run.precision='auto'" in emulation_warning("bf16", CPU)) is not _listed()
