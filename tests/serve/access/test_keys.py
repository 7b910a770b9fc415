"""Keys: their forms, their rotation, and what a check compares."""

import hashlib
import hmac
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import InvalidInput
from embedkit.serve.access import keys as module
from embedkit.serve.access.keys import Key, KeyRing, digest_of, read_keys

ONE, TWO = "a" * 32, "b" * 32


class Clock:
    """Seconds that the test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rotating(tmp_path, clock):
    """A ring on a file, and a function that rewrites the file at a later time."""
    file = tmp_path / "keys"
    file.write_text(f"# callers\n\nalice:{ONE}\n")
    stamps = iter(range(1_000_000, 2_000_000))
    os.utime(file, (1, 1))

    def rewrite(text, *, after_s=1.0):
        file.write_text(text)
        os.utime(file, (1, next(stamps)))
        clock.now += after_s

    return KeyRing(file=file, clock=clock), rewrite, file


def name_of(ring, secret):
    found = ring.find(digest_of(secret))
    return None if found is None else found.name


def test_a_key_is_kept_as_its_sha256_only():
    (key,) = read_keys([f"alice:{ONE}"])
    assert key == Key("alice", hashlib.sha256(ONE.encode()).digest())


def test_a_key_without_a_name_is_named_by_its_digest():
    (key,) = read_keys([ONE])
    assert key.name == f"key-{hashlib.sha256(ONE.encode()).hexdigest()[:8]}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "alice:",
        "a lice:" + ONE,
        ":" + ONE,
        "with space",
        "tab\tbed",
        "nul\0",
        "kéy",
        "x" * 513,
    ],
)
def test_another_form_is_refused_without_repeating_the_key(text):
    with pytest.raises(InvalidInput, match="expected key 2 as KEY or NAME:KEY") as caught:
        read_keys([ONE, text])
    assert ONE not in str(caught.value)
    assert len(text) < 2 or text not in str(caught.value)


def test_a_short_key_is_warned_of_and_not_shown(caplog):
    read_keys(["hunter2"])
    assert "7 characters" in caplog.text
    assert "hunter2" not in caplog.text


@given(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=",:"), min_size=16
    )
)
def test_every_printable_key_is_found_and_no_other(secret):
    ring = KeyRing([f"alice:{secret}"[:500]])
    assert name_of(ring, secret[: 500 - 6]) == "alice"
    assert name_of(ring, secret[: 500 - 6] + "x") is None


def test_a_file_is_read_again_when_it_changed_and_a_second_passed(rotating, clock):
    ring, rewrite, _ = rotating
    assert (name_of(ring, ONE), name_of(ring, TWO)) == ("alice", None)
    rewrite(f"bob:{TWO}\n", after_s=0.5)
    assert (name_of(ring, ONE), name_of(ring, TWO)) == ("alice", None)
    clock.now += 0.5
    assert (name_of(ring, ONE), name_of(ring, TWO)) == (None, "bob")


def test_an_emptied_file_leaves_no_key(rotating):
    ring, rewrite, _ = rotating
    rewrite("# nobody\n")
    assert name_of(ring, ONE) is None
    assert ring  # and the server does not become open


@pytest.mark.parametrize("text", ["not a key\n", "\xff" * 3, "x" * ((1 << 20) + 1)])
def test_a_file_that_became_unreadable_leaves_the_keys_as_they_were(rotating, caplog, text):
    ring, rewrite, _ = rotating
    rewrite(text)
    assert name_of(ring, ONE) == "alice"
    assert "the keys read before stay good" in caplog.text
    rewrite(f"bob:{TWO}\n")
    assert (name_of(ring, ONE), name_of(ring, TWO)) == (None, "bob")


def test_a_file_that_is_gone_leaves_the_keys_until_it_is_back(rotating, clock):
    ring, rewrite, file = rotating
    file.unlink()
    clock.now += 1
    assert name_of(ring, ONE) == "alice"
    rewrite(f"bob:{TWO}\n")
    assert (name_of(ring, ONE), name_of(ring, TWO)) == (None, "bob")


def test_keys_given_as_texts_stay_beside_the_file(tmp_path, clock):
    file = tmp_path / "keys"
    file.write_text(TWO)
    ring = KeyRing([f"fixed:{ONE}"], file, clock=clock)
    file.write_text("# none\n")
    clock.now += 1
    assert (name_of(ring, ONE), name_of(ring, TWO)) == ("fixed", None)


def test_a_start_without_any_key_in_the_file_is_refused(tmp_path):
    (tmp_path / "keys").write_text("# later\n")
    with pytest.raises(InvalidInput, match="at least one key"):
        KeyRing(file=tmp_path / "keys")
    with pytest.raises(InvalidInput, match="expected to read keys"):
        KeyRing(file=tmp_path / "absent")


def test_a_key_is_compared_with_all_in_constant_time_and_once(monkeypatch):
    ring = KeyRing([f"k{i}:{i:032d}" for i in range(5)])
    compared = []

    class Counting:
        @staticmethod
        def compare_digest(a, b):
            compared.append(a)
            return hmac.compare_digest(a, b)

    monkeypatch.setattr(module, "hmac", Counting)
    assert name_of(ring, f"{0:032d}") == "k0"
    assert len(compared) == 5, "a match must not end the comparison early"
    assert name_of(ring, f"{0:032d}") == "k0"
    assert len(compared) == 5
    assert name_of(ring, "wrong") is None
    assert name_of(ring, "wrong") is None
    assert len(compared) == 15, "a wrong key is not remembered"
