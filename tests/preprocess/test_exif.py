import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.preprocess.exif import read_orientation


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_found_in_either_byte_order(exif, orientation, order):
    assert read_orientation(exif(orientation, order)) == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_a_value_that_is_none_means_upright(exif, orientation):
    assert read_orientation(exif(orientation)) == 1


def test_a_tag_of_another_type_means_upright(exif):
    assert read_orientation(exif(6).replace(b"\x12\x01\x03", b"\x12\x01\x04")) == 1


def test_every_cut_is_upright_or_the_orientation(exif):
    block = exif(6)
    assert {read_orientation(block[:length]) for length in range(len(block))} == {1, 6}


@given(st.binary(max_size=60), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_any_bytes_give_an_orientation(tail, head):
    assert read_orientation(head + tail) in range(1, 9)
