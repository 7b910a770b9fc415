"""Kept memory: large tensors are not asked of the system again and again."""

import resource
import subprocess
import sys

import pytest

# Another process, because the allocator of this one has a history.
CODE = """
import resource, torch
from embedkit.train.run.memory import kept_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
torch.ones(16_000_000)
free = faults()
with kept_memory():
    faults(), faults(), faults()  # the heap grows until it has room for all
    kept = faults()
print(free, kept, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone keeps memory")
def test_pages_are_asked_for_once_while_it_lasts():
    found = subprocess.run(
        [sys.executable, "-c", CODE], check=True, capture_output=True, text=True
    )
    free, kept, after = map(int, found.stdout.split())
    # 64 MB are 15,625 pages of 4 KiB each time.
    assert resource.getpagesize() == 4096
    assert free > 5 * 15_000
    assert kept < 1_000
    assert after > 15_000  # some of it may come from what the heap still has
