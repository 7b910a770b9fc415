"""Tensors on the wire become numpy arrays and back, without a copy where possible."""

from collections.abc import Sequence
from math import prod
from typing import cast

import numpy as np
import numpy.typing as npt

from embedkit.errors import InvalidInput
from embedkit.types import EncodedImages, Images
from embedkit.wire.proto import tensor_pb2

__all__ = [
    "decode_images",
    "decode_tensor",
    "encode_images",
    "encode_tensor",
    "fill_tensor",
    "fill_vectors",
]

_DTYPES: dict[tensor_pb2.DType, np.dtype[np.generic]] = {
    tensor_pb2.UINT8: np.dtype("u1"),
    tensor_pb2.FLOAT32: np.dtype("<f4"),
    tensor_pb2.FLOAT16: np.dtype("<f2"),
    tensor_pb2.INT8: np.dtype("i1"),
    tensor_pb2.FLOAT64: np.dtype("<f8"),
    tensor_pb2.INT64: np.dtype("<i8"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
# numpy puts a dtype's name together anew each time, which costs more than the rest of decoding.
_NAMES = {code: dtype.name for code, dtype in _DTYPES.items()}
# A smaller scale would be subnormal in float32 or 0, and the division by it overflow.
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


def encode_tensor(array: npt.NDArray[np.generic], *, scale: float = 0.0) -> tensor_pb2.Tensor:
    """Return the message of an array; ``scale`` only for int8, whose value is scale * byte.

    Raises:
        InvalidInput: If the dtype has no code on the wire.
    """
    message = tensor_pb2.Tensor()
    fill_tensor(message, array, scale=scale)
    return message


def fill_tensor(
    message: tensor_pb2.Tensor, array: npt.NDArray[np.generic], *, scale: float = 0.0
) -> None:
    """Write an array into an empty message where it stands.

    A message made apart and copied into its place costs twice as much.

    Raises:
        InvalidInput: If the dtype has no code on the wire.
    """
    code = _CODES.get(array.dtype.newbyteorder("<"))
    if code is None:
        known = sorted(str(d) for d in _CODES)
        raise InvalidInput(f"expected a dtype of {known}, got {array.dtype}")
    message.data = np.ascontiguousarray(array, dtype=_DTYPES[code]).tobytes()
    message.dtype = code
    message.shape[:] = array.shape
    if scale:
        message.scale = scale


def fill_vectors(
    message: tensor_pb2.Tensor, vectors: npt.NDArray[np.float32], dtype: int
) -> None:
    """Write vectors into an empty message in the dtype that a caller asked for.

    Args:
        message: Where to.
        vectors: Any shape, finite.
        dtype: FLOAT32 (also for unspecified), FLOAT16 or INT8; INT8 has one scale for the whole
            tensor, so that its largest value becomes 127.

    Raises:
        InvalidInput: If it is another dtype.
    """
    if dtype in (tensor_pb2.DTYPE_UNSPECIFIED, tensor_pb2.FLOAT32):
        fill_tensor(message, vectors)
    elif dtype == tensor_pb2.FLOAT16:
        fill_tensor(message, vectors.astype(np.float16))
    elif dtype == tensor_pb2.INT8:
        scale = max(float(np.abs(vectors).max(initial=0.0)) / 127, _SMALLEST_SCALE)
        fill_tensor(message, np.rint(vectors / scale).astype(np.int8), scale=scale)
    else:
        raise InvalidInput(f"expected dtype FLOAT32, FLOAT16 or INT8, got {dtype}")


def decode_tensor(
    message: tensor_pb2.Tensor, *, axes: str, dtypes: Sequence[str]
) -> npt.NDArray[np.generic]:
    """Return a read-only view of the message's bytes; int8 comes back as scaled float32.

    Args:
        message: Untrusted; nothing is allocated before its size is checked.
        axes: The axis letters expected, e.g. ``"n d"``; only their number is checked.
        dtypes: Allowed numpy dtype names.

    Raises:
        InvalidInput: If dtype, number of axes, a negative axis or the byte count is wrong.
    """
    code = message.dtype
    name = _NAMES.get(code)
    if name is None or name not in dtypes:
        raise InvalidInput(
            f"expected a tensor of {' or '.join(dtypes)}, got {name or f'dtype {code}'}"
        )
    count = len(message.shape)
    if count != len(axes.split()):  # counted first: of millions no list and no text is made
        raise InvalidInput(f"expected a tensor with axes ({axes}), got one of {count} axes")
    dtype, data, shape = _DTYPES[code], message.data, tuple(message.shape)
    if min(shape, default=0) < 0:
        raise InvalidInput(f"expected a tensor with axes ({axes}), got shape {shape}")
    expected = prod(shape) * dtype.itemsize
    if expected != len(data):
        raise InvalidInput(
            f"expected {expected} bytes for shape {shape} of {name}, got {len(data)}"
        )
    try:
        array = np.frombuffer(data, dtype=dtype).reshape(shape)
    except ValueError as error:  # an axis of 0 beside one beyond what any array has
        raise InvalidInput(f"expected a shape that an array can have, got {shape}") from error
    if code == tensor_pb2.INT8 and message.scale:
        return array.astype(np.float32) * np.float32(message.scale)
    return array


def decode_images(pixels: tensor_pb2.Tensor) -> Images:
    """Return uint8 (n, h, w, c) with 1 or 3 channels.

    Raises:
        InvalidInput: If the tensor is anything else.
    """
    array = decode_tensor(pixels, axes="n h w c", dtypes=("uint8",))
    if array.shape[3] not in (1, 3) or 0 in array.shape[1:]:
        raise InvalidInput(
            f"expected images (n, h, w, c) with 1 or 3 channels, got shape {array.shape}"
        )
    return cast(Images, array)


def encode_images(
    images: Images | EncodedImages,
) -> tensor_pb2.Tensor | tensor_pb2.EncodedImages:
    """Return a pixel tensor for an array, or encoded files for a list of bytes.

    Raises:
        InvalidInput: If it is neither uint8 (n, h, w, c) nor a sequence of bytes.
    """
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise InvalidInput(
                f"expected images uint8 (n, h, w, c), got {images.dtype} {images.shape}"
            )
        return encode_tensor(images)
    if isinstance(images, bytes | str) or not all(isinstance(i, bytes) for i in images):
        raise InvalidInput("expected a list of image files as bytes, got something else")
    return tensor_pb2.EncodedImages(data=images)
