"""A small bundle to serve, and a server of it."""

import pytest

from embedkit.bench.models import write_network


@pytest.fixture(scope="session")
def light(tmp_path_factory):
    """The directory of the light network's bundle."""
    return write_network(tmp_path_factory.mktemp("models"), "light")
