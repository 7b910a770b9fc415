"""The queue: first in, first out, and never changed under a gradient."""

import pytest
import torch
from torch import nn

from embedkit.errors import InvalidInput
from embedkit.train.batch import Batch
from embedkit.train.terms import Queue, built


def rows(*values):
    return torch.tensor([[float(v)] for v in values])


def test_it_starts_full_of_unit_vectors():
    assert torch.allclose(Queue(5, 3).read().norm(dim=1), torch.ones(5))


def test_the_oldest_goes_first():
    queue = Queue(4, 1)
    queue.push(rows(1, 2, 3))
    queue.push(rows(4, 5))
    assert queue.read().flatten().tolist() == [5, 2, 3, 4]
    assert queue.cursor.item() == 1


def test_of_more_than_fit_the_last_stay():
    queue = Queue(3, 1)
    queue.push(rows(1))
    queue.push(rows(2, 3, 4, 5, 6))
    assert sorted(queue.read().flatten().tolist()) == [4, 5, 6]
    queue.push(rows(7))
    assert sorted(queue.read().flatten().tolist()) == [5, 6, 7]


def test_a_push_does_not_disturb_what_was_read():
    queue, z = Queue(3, 2), torch.ones(2, 2, requires_grad=True)
    products = z @ queue.read().T
    queue.push(z)
    products.sum().backward()
    assert z.grad is not None
    assert not queue.vectors.requires_grad


def test_it_is_part_of_the_state():
    queue, other = Queue(3, 1), Queue(3, 1)
    queue.push(rows(1, 2))
    other.load_state_dict(queue.state_dict())
    other.push(rows(3))
    assert other.read().flatten()[:3].tolist() == [1, 2, 3]


def test_the_built_module_must_be_of_its_kind():
    z = torch.zeros(2, 3, 4)
    queue = Queue(3, 4)
    assert built(Batch(z, z, module=queue), Queue) is queue
    with pytest.raises(InvalidInput, match=r"expected the Queue .* got Identity"):
        built(Batch(z, z, module=nn.Identity()), Queue)
    with pytest.raises(InvalidInput, match="expected a batch with module"):
        built(Batch(z, z), Queue)
