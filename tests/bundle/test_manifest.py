"""A manifest is either what was written or refused, whoever wrote it."""

import json
from dataclasses import replace

import pytest

from embedkit.bundle import FileRecord, Manifest
from embedkit.bundle.manifest import MANIFEST_LIMIT_BYTES, canonical
from embedkit.errors import BundleDamaged, InvalidInput


def forged(manifest: Manifest, **changes: object) -> bytes:
    """A manifest with a right digest of its own but other values, as an attacker would make."""
    return replace(manifest, **changes).to_bytes()


def test_what_is_written_is_read(plain_manifest: Manifest) -> None:
    full = replace(
        plain_manifest,
        encoder={"name": "resnet", "blocks": [1, 1]},
        licence="MIT",
        versions={"opset": "20"},
        files={"model.onnx": FileRecord("0" * 64, 3)},
    )
    assert Manifest.from_bytes(full.to_bytes()) == full


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "heads/../../evil",
        "heads/",
        "..",
        "a/b",
        "other/x.npz",
        "",
        "a\0b",
        "a\nb",
        "manifest.json",
        "x" * 200,
    ],
)
def test_a_file_name_that_leaves_the_bundle_is_refused(
    plain_manifest: Manifest, name: str
) -> None:
    data = forged(plain_manifest, files={name: FileRecord("0" * 64, 1)})
    with pytest.raises(BundleDamaged, match="plain file names"):
        Manifest.from_bytes(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../up"},
        {"name": "Upper"},
        {"name": ""},
        {"name": 3},
        {"version": 0},
        {"version": True},
        {"version": "1"},
        {"dim": -1},
        {"dim": 2.0},
        {"outputs": {"embedding": 2}},
        {"outputs": {"embedding": [0]}},
        {"outputs": ["embedding"]},
        {"files": {"a": FileRecord("0" * 63, 1)}},
        {"files": {"a": FileRecord("0" * 64, -1)}},
        {"files": {"a": FileRecord("g" * 64, 1)}},
    ],
)
def test_a_value_out_of_range_is_refused(
    plain_manifest: Manifest, changes: dict[str, object]
) -> None:
    with pytest.raises(BundleDamaged):
        Manifest.from_bytes(forged(plain_manifest, **changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"schema": 1}',
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b"1" * 10_000,
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BundleDamaged):
        Manifest.from_bytes(data)


def test_a_huge_manifest_is_refused_before_it_is_parsed(plain_manifest: Manifest) -> None:
    files = {f"f{i}": FileRecord("0" * 64, 1) for i in range(12_000)}
    data = forged(plain_manifest, files=files)
    assert len(data) > MANIFEST_LIMIT_BYTES
    with pytest.raises(BundleDamaged, match=f"at most {MANIFEST_LIMIT_BYTES} bytes"):
        Manifest.from_bytes(data)


def test_another_schema_says_so(plain_manifest: Manifest) -> None:
    values = json.loads(plain_manifest.to_bytes())
    values["schema"] = 2
    with pytest.raises(BundleDamaged, match="schema 2, expected 1"):
        Manifest.from_bytes(canonical(values))


def test_an_unknown_key_and_a_twice_given_key_are_refused(plain_manifest: Manifest) -> None:
    values = json.loads(plain_manifest.to_bytes())
    with pytest.raises(BundleDamaged, match="changed bytes"):
        Manifest.from_bytes(canonical({**values, "surprise": 1}))
    twice = plain_manifest.to_bytes().replace(b'"dim": 2', b'"dim": 9,\n "dim": 2', 1)
    with pytest.raises(BundleDamaged, match="changed bytes"):
        Manifest.from_bytes(twice)


def test_not_a_number_cannot_be_written(plain_manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="JSON"):
        forged(plain_manifest, encoder={"mean": float("nan")})


def test_check_names_the_value(plain_manifest: Manifest) -> None:
    with pytest.raises(InvalidInput, match="dim, got 0"):
        replace(plain_manifest, dim=0).check()
