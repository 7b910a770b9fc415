"""The one EXIF tag that changes pixels."""

import struct

__all__ = ["read_orientation"]

_ORIENTATION_TAG = 0x0112
_SHORT = 3


def read_orientation(exif: bytes) -> int:
    """Orientation of an EXIF block, 1 to 8; 1, upright, where it is damaged or says nothing.

    Args:
        exif: The block from its byte order mark on, without the ``Exif`` prefix.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, form, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == _ORIENTATION_TAG and form == _SHORT and 1 <= value <= 8:
                return int(value)
    except struct.error:
        return 1
    return 1
