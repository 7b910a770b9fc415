"""Fixtures for every test: a seeded generator, the real-data folder, a clean environment."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded from the test's name, so that tests do not depend on their order."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets; skips where it is absent."""
    folder = Path(os.environ.get("EMBEDKIT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set EMBEDKIT_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy may stand between a test and its own server; no key may leak in."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in [key for key in os.environ if key.startswith("EMBEDKIT_")]:
        if name != "EMBEDKIT_TEST_DATA":
            monkeypatch.delenv(name)
