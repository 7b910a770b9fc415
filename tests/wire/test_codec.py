"""Tensors and images to the wire and back."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embedkit.errors import InvalidInput
from embedkit.wire.codec import (
    decode_images,
    decode_tensor,
    encode_images,
    encode_tensor,
    fill_vectors,
)
from embedkit.wire.proto import tensor_pb2

DTYPES = ["uint8", "int8", "int64", "float16", "float32", "float64"]
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


def tensor_of(code: int) -> tensor_pb2.Tensor:
    """A tensor whose dtype this version does not know."""
    return tensor_pb2.Tensor.FromString(bytes([0x10, code, 0x1A, 0x02, 0, 0]))


def vectors_in(vectors, dtype):
    message = tensor_pb2.Tensor()
    fill_vectors(message, vectors, dtype)
    return message


@given(data=st.data(), dtype=st.sampled_from(DTYPES), shape=SHAPES)
def test_every_array_survives_the_round_trip_bit_for_bit(data, dtype, shape):
    array = data.draw(hnp.arrays(dtype, shape))
    message = tensor_pb2.Tensor.FromString(encode_tensor(array).SerializeToString())
    axes = " ".join("abcd"[: array.ndim])
    back = decode_tensor(message, axes=axes, dtypes=(dtype,))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_byte_order_and_strides_do_not_matter():
    array = np.arange(12, dtype=">f4").reshape(3, 4)
    expected = array.astype("<f4")
    for given_ in (array, np.asfortranarray(expected), expected[::1, :]):
        back = decode_tensor(encode_tensor(given_), axes="n d", dtypes=("float32",))
        np.testing.assert_array_equal(back, expected)
    strided = encode_tensor(expected[:, ::2])
    assert strided.data == expected[:, ::2].tobytes()


def test_decoding_makes_no_copy():
    message = encode_tensor(np.zeros((2, 3), np.float32))
    back = decode_tensor(message, axes="n d", dtypes=("float32",))
    assert not back.flags.writeable
    assert not back.flags.owndata


@pytest.mark.parametrize("dtype", ["complex64", "uint16", "bool", "U3"])
def test_dtypes_without_a_code_are_refused(dtype):
    with pytest.raises(InvalidInput, match="expected a dtype"):
        encode_tensor(np.zeros(2, dtype))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (tensor_pb2.Tensor(data=b"1234", dtype=tensor_pb2.FLOAT32, shape=[1]), "axes"),
        (tensor_pb2.Tensor(data=b"1234", dtype=tensor_pb2.FLOAT32, shape=[1, 2]), "8 bytes"),
        (tensor_pb2.Tensor(data=b"1234", dtype=tensor_pb2.FLOAT32, shape=[-1, -1]), "axes"),
        (tensor_pb2.Tensor(data=b"12", dtype=tensor_pb2.UINT8, shape=[1, 2]), "float32, got u"),
        (tensor_pb2.Tensor(data=b"12", shape=[1, 2]), "dtype 0"),
        (tensor_of(99), "dtype 99"),
        (tensor_pb2.Tensor(data=b"", dtype=tensor_pb2.FLOAT32), "axes"),
        (
            tensor_pb2.Tensor(data=b"", dtype=tensor_pb2.FLOAT32, shape=[1 << 62, 1 << 62]),
            "bytes for shape",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_found(message, text):
    with pytest.raises(InvalidInput, match=text):
        decode_tensor(message, axes="n d", dtypes=("float32",))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_keep_their_pixels(rng, channels):
    images = rng.integers(0, 256, (2, 5, 4, channels), dtype=np.uint8)
    np.testing.assert_array_equal(decode_images(encode_images(images)), images)


def test_files_travel_as_they_are():
    assert list(encode_images([b"a", b"bc"]).data) == [b"a", b"bc"]


@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 4)), np.zeros((4, 4, 3), np.uint8), b"one", "path", ["path"]]
)
def test_what_is_no_batch_of_images_is_refused(images):
    with pytest.raises(InvalidInput, match="expected"):
        encode_images(images)


@pytest.mark.parametrize("shape", [(1, 0, 4, 3), (1, 4, 4, 4), (1, 4, 4, 0)])
def test_images_without_pixels_or_with_other_channels_are_refused(shape):
    with pytest.raises(InvalidInput, match="1 or 3 channels"):
        decode_images(encode_tensor(np.zeros(shape, np.uint8)))


@given(
    vectors=hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32)),
)
def test_int8_is_within_half_a_step_of_its_scale(vectors):
    message = vectors_in(vectors, tensor_pb2.INT8)
    assert len(message.data) == vectors.size
    back = decode_tensor(message, axes="n d", dtypes=("int8",))
    assert back.dtype == np.float32
    np.testing.assert_allclose(np.asarray(back, float), vectors, atol=message.scale * 0.501)


def test_vectors_default_to_float32_and_other_dtypes_are_refused(rng):
    vectors = rng.standard_normal((2, 3)).astype(np.float32)
    plain = vectors_in(vectors, tensor_pb2.DTYPE_UNSPECIFIED)
    assert plain.data == vectors.tobytes()
    half = vectors_in(vectors, tensor_pb2.FLOAT16)
    assert half.data == vectors.astype(np.float16).tobytes()
    with pytest.raises(InvalidInput, match="FLOAT16"):
        vectors_in(vectors, tensor_pb2.INT64)


@pytest.mark.parametrize("shape", [(2**62, 0), (0, 2**62), (0, 2**62, 2**62)])
def test_no_bytes_of_an_impossible_shape_are_refused(shape):
    message = tensor_pb2.Tensor(dtype=tensor_pb2.FLOAT32, shape=shape)
    with pytest.raises(InvalidInput, match="shape that an array can have"):
        decode_tensor(message, axes=" ".join("abc"[: len(shape)]), dtypes=("float32",))


def test_of_millions_of_axes_only_their_number_is_told():
    """Nothing is made of them either: the call needs no memory that grows with them."""
    message = tensor_pb2.Tensor(dtype=tensor_pb2.FLOAT32, shape=[1] * 2_000_000)
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="axes \\(n d\\), got one of 2000000 axes") as caught:
        decode_tensor(message, axes="n d", dtypes=("float32",))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) < 100
    assert peak < 1 << 20
