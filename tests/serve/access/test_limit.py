"""The rate of a key, on a clock that the test moves."""

import numpy as np
import pytest

from embedkit.errors import RateLimited
from embedkit.serve.access.limit import Bucket, images_in
from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import embedding_pb2, index_pb2, model_pb2, tensor_pb2
from embedkit.wire.proto.inference import open_inference_pb2 as oip


class Clock:
    """Seconds that the test moves."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def entered(bucket):
    """How many single requests get in at this moment."""
    count = 0
    while True:
        try:
            bucket.enter()
        except RateLimited:
            return count
        count += 1


def test_one_second_of_the_rate_may_come_at_once_and_then_the_rate(clock):
    bucket = Bucket(10, clock)
    assert entered(bucket) == 10
    clock.now += 0.35
    assert entered(bucket) == 3
    clock.now += 100
    assert entered(bucket) == 10


def test_the_refusal_says_when_to_come_back_and_is_right(clock):
    bucket = Bucket(4, clock)
    entered(bucket)
    with pytest.raises(RateLimited, match=r"at most 4 images per second.*0\.25 s") as caught:
        bucket.enter()
    assert caught.value.retry_s == pytest.approx(0.25)
    clock.now += caught.value.retry_s - 1e-6
    assert entered(bucket) == 0
    clock.now += 2e-6
    assert entered(bucket) == 1


def test_a_large_request_gets_in_and_the_next_waits_for_it(clock):
    bucket = Bucket(10, clock)
    bucket.enter()
    bucket.pay(64)
    with pytest.raises(RateLimited) as caught:
        bucket.enter()
    assert caught.value.retry_s == pytest.approx((64 - 10 + 1) / 10)
    clock.now += 5.5
    bucket.enter()


def test_a_claimed_count_cannot_reach_beyond_some_hours(clock):
    bucket = Bucket(1, clock)
    bucket.pay(1 << 62)
    bucket.pay(-5)
    with pytest.raises(RateLimited) as caught:
        bucket.enter()
    assert caught.value.retry_s < 1 << 17


def test_a_rate_below_one_lets_single_requests_in(clock):
    bucket = Bucket(0.5, clock)
    assert entered(bucket) == 1
    clock.now += 2
    assert entered(bucket) == 1


PIXELS = encode_tensor(np.zeros((7, 2, 2, 3), np.uint8))
FILES = tensor_pb2.EncodedImages(data=[b"a", b"b", b"c"])


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        (embedding_pb2.EmbedRequest(pixels=PIXELS), 7),
        (embedding_pb2.EmbedRequest(encoded=FILES), 3),
        (embedding_pb2.EmbedRequest(), 1),
        (embedding_pb2.EmbedRequest(encoded=tensor_pb2.EncodedImages()), 1),
        (index_pb2.SearchRequest(vectors=encode_tensor(np.zeros((5, 8), np.float32))), 5),
        (index_pb2.SearchRequest(vectors=encode_tensor(np.zeros(8, np.float32))), 1),
        (index_pb2.UpsertRequest(pixels=tensor_pb2.Tensor(shape=[-9, 1])), 1),
        (model_pb2.ListModelsRequest(), 1),
        (oip.ModelInferRequest(inputs=[{"shape": [7, 2, 2, 3]}]), 7),
        (oip.ModelInferRequest(inputs=[{"shape": [4]}]), 4),
        (oip.ModelInferRequest(inputs=[{"shape": [4]}, {"shape": [9]}]), 4),
        (oip.ModelInferRequest(), 1),
    ],
)
def test_what_a_request_brings_is_counted(request_, count):
    assert images_in(request_) == count
