"""The number of usable cores under quotas."""

import os
from pathlib import Path

import pytest

from embedkit.runtime.cores import usable_cores

ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", ALL),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("100001 100000\n", min(2, ALL)),
        ("99999999 100000\n", ALL),
        ("100000 0\n", ALL),
        ("", ALL),
        ("nonsense", ALL),
    ],
)
def test_quota_and_affinity_both_limit(tmp_path: Path, text: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path / "cpu.max") == cores


def test_without_a_quota_file_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none") == ALL
