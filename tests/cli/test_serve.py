"""What ``embedkit serve`` arranges before it serves."""

import pytest

from embedkit.cli.serve import _allow_open_files

resource = pytest.importorskip("resource")


def test_as_many_files_as_the_system_allows_can_be_open() -> None:
    """256 would be fifty collections."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        pytest.skip("no hard limit here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    try:
        _allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))
