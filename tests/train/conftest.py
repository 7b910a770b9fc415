"""A recipe so small that a run takes a fraction of a second."""

import pytest
import torch

from embedkit.train.recipe import Recipe


@pytest.fixture(autouse=True)
def _one_thread():
    """Runs this small are slower on several threads, and much slower on busy ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small():
    """Returns a function from overrides (nested tables) to a recipe of 8 steps."""

    def build(**sections):
        table: dict[str, object] = {
            "seed": 1,
            "data": {"source": "digits", "limit": 70},
            "encoder": {"name": "resnet", "blocks": [1, 1], "width": 4},
            "objective": {"name": "simclr"},
            "projection": {"hidden": 16, "dim": 8},
            "schedule": {"epochs": 2, "batch_size": 16, "warmup_epochs": 0.5},
            "run": {"log_steps": 1, "checkpoint_steps": 3},
        }
        for name, value in sections.items():
            before = table.get(name)
            merges = isinstance(value, dict) and isinstance(before, dict)
            table[name] = before | value if merges else value
        return Recipe.from_dict(table)

    return build
