"""Pinning: what is parsed, what is inherited, what is restored."""

import os
import subprocess
import sys
import threading

import pytest

from embedkit.bench.cores import parse_cores, pinned
from embedkit.errors import InvalidInput

SOME = min(os.sched_getaffinity(0))


def test_cores_are_parsed():
    assert parse_cores("any") == ()
    assert parse_cores(str(SOME)) == (SOME,)
    assert parse_cores(f"{SOME}-{SOME},{SOME}") == (SOME,)


@pytest.mark.parametrize("text", ["", "a", "-1", "1-", "0,,1", "100000", "0-100000"])
def test_what_is_no_usable_core_is_refused(text):
    with pytest.raises(InvalidInput, match="expected cores"):
        parse_cores(text)


def test_threads_and_processes_inherit_and_the_caller_is_restored():
    before = os.sched_getaffinity(0)
    seen = []
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    with pinned((SOME,)):
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert seen == [{SOME}]
    assert child.stdout.decode().strip() == str([SOME])
    assert os.sched_getaffinity(0) == before
    with pinned(()):
        assert os.sched_getaffinity(0) == before
