"""Every form of images, cut into messages in order and within the limits."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedkit.client.images import Chunk, ImageInput, Room, count_images, cut_images
from embedkit.errors import InvalidInput, MessageTooLarge, NotFound
from embedkit.preprocess import decode

ROOM = Room(message_bytes=1 << 20, images=16)


def items(chunks: list[Chunk]) -> list[bytes]:
    """Every image of all chunks, in order, as bytes."""
    return [
        bytes(image) if isinstance(image, bytes) else image.tobytes()
        for chunk in chunks
        for image in chunk.images
    ]


@given(
    sizes=st.lists(
        st.one_of(st.integers(1, 90), st.sampled_from([(1, 1, 3), (2, 2, 1), (3, 4, 3)])),
        max_size=60,
    ),
    most=st.integers(1, 9),
    room_bytes=st.integers(100, 400),
)
def test_mixed_lists_arrive_whole_in_order_and_within_the_limits(
    sizes: list, most: int, room_bytes: int
) -> None:
    rng = np.random.default_rng(0)
    images = [
        rng.bytes(size) if isinstance(size, int) else rng.integers(0, 256, size, np.uint8)
        for size in sizes
    ]
    chunks = list(cut_images(images, Room(room_bytes, most)))
    assert items(chunks) == [i if isinstance(i, bytes) else i.tobytes() for i in images]
    start = 0
    for chunk in chunks:
        assert chunk.start == start
        assert 1 <= len(chunk.images) <= most
        total = sum(len(i) if isinstance(i, bytes) else i.nbytes for i in chunk.images)
        assert total <= room_bytes
        start += len(chunk.images)


@given(count=st.integers(0, 50), most=st.integers(1, 20), room_bytes=st.integers(12, 200))
def test_an_array_is_cut_without_copies(count: int, most: int, room_bytes: int) -> None:
    images = np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)
    chunks = list(cut_images(images, Room(room_bytes, most)))
    assert b"".join(items(chunks)) == images.tobytes()
    for chunk in chunks:
        assert isinstance(chunk.images, np.ndarray)
        assert chunk.images.base is images.base or chunk.images.base is images
        assert len(chunk.images) <= most
        assert chunk.images.nbytes <= room_bytes


def test_large_inputs_are_sent_off_early_so_that_several_are_in_flight() -> None:
    room = Room(message_bytes=1 << 30, images=100_000)
    chunks = list(cut_images(np.zeros((1000, 4, 4, 3), np.uint8), room))
    assert [len(c.images) for c in chunks[:-1]] == [128] * 7
    chunks = list(cut_images(np.zeros((3, 1500, 1500, 1), np.uint8), room))
    assert [len(c.images) for c in chunks] == [1, 1, 1]


@pytest.mark.parametrize(
    ("images", "count"),
    [
        (np.zeros((3, 2, 2, 1), np.uint8), 3),
        (np.zeros((2, 2, 3), np.uint8), 1),
        (np.zeros((2, 2), np.uint8), 1),
        (b"file", 1),
        ("a.jpg", 1),
        (Path("a.jpg"), 1),
        ([b"file", Path("a.jpg")], 2),
        ([], 0),
        (np.zeros((0, 2, 2, 1), np.uint8), 0),
    ],
)
def test_counting_reads_nothing(images, count: int) -> None:
    assert count_images(images) == count


def test_paths_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    path = tmp_path / "a.jpg"
    forms: list[ImageInput] = [path, str(path), [path, str(path)], (path,)]
    for form in forms:
        assert set(items(list(cut_images(form, ROOM)))) == {b"content"}
    with pytest.raises(NotFound, match=r"image 1 at .*b\.jpg"):
        list(cut_images([path, tmp_path / "b.jpg"], ROOM))
    with pytest.raises(InvalidInput, match="image 0"):
        list(cut_images(tmp_path, ROOM))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16", "YCbCr"])
def test_a_pillow_image_means_the_same_pixels_as_its_file(
    rng: np.random.Generator, mode: str
) -> None:
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (5, 7)).astype(np.uint16))
    else:
        image = Image.fromarray(pixels).convert(mode)
    (chunk,) = cut_images(image, ROOM)
    (sent,) = chunk.images
    got = decode(sent) if isinstance(sent, bytes) else sent
    if mode in ("CMYK", "YCbCr"):
        expected = np.asarray(image.convert("RGB"))
    else:
        file = io.BytesIO()
        image.save(file, "PNG")
        expected = decode(file.getvalue())
    assert np.array_equal(got, expected)


def test_a_pillow_image_keeps_its_rotation(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    from_path = decode((tmp_path / "a.png").read_bytes())
    assert from_path.shape == (7, 5, 3)
    with Image.open(tmp_path / "a.png") as image:
        (chunk,) = cut_images(image, ROOM)
    (sent,) = chunk.images
    assert isinstance(sent, bytes)
    assert np.array_equal(decode(sent), from_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 2, 2, 3), np.float32), "uint8 from 0 to 255, got float32"),
        ([np.zeros((2, 2, 3), np.float64)], "image 0 as uint8"),
        (np.zeros((5, 8, 8), np.uint8), r"images\[\.\.\., None\]|x\[\.\.\., None\]"),
        (np.zeros((2, 2, 2, 2), np.uint8), "1 or 3 channels"),
        (np.zeros((1, 0, 2, 3), np.uint8), "shape"),
        ([np.zeros((1, 2, 2, 3), np.uint8)], "image 0"),
        ([b"ok", 3], "image 1 .* got int"),
        ([[b"nested"]], "got list"),
        (3, "got int"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_image_is_refused(images, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        list(cut_images(images, ROOM)) if count_images(images) else None


@pytest.mark.parametrize("images", [np.zeros((3, 40, 40, 1), np.uint8), [b"ok", b"x" * 1600]])
def test_an_image_larger_than_a_message_is_refused_before_it_is_sent(images) -> None:
    with pytest.raises(MessageTooLarge, match=r"at most 1000 bytes, got 16\d\d"):
        list(cut_images(images, Room(1000, 10)))


def test_ids_and_payloads_take_room_too() -> None:
    room = Room(message_bytes=10_000, images=64, wanted_images=128).beside(1000)
    assert room.images == 5
    assert room.message_bytes == 5000
    assert Room(10_000, 64).beside(0) == Room(10_000, 64)
