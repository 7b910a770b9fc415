"""Small tensors are slower on several threads, and much slower on busy ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from embedkit.retrieve.store import VectorStore, stores
from tests.conformance.vectors import LOCAL


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=LOCAL)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    opened = stores.get(request.param)(tmp_path / "data")
    yield opened
    opened.close()
