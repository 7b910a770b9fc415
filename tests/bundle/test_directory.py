"""Opening a bundle: every changed byte is found, and nothing outside it is ever read."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.bundle import MANIFEST, Bundle, Manifest
from embedkit.errors import BundleDamaged, InvalidInput, NotFound


def every_file(bundle: Bundle) -> list[str]:
    return [MANIFEST, *bundle.manifest.files]


def test_an_untouched_bundle_verifies_and_gives_back_what_was_written(
    bundle: Bundle, content: dict[str, bytes]
) -> None:
    opened = Bundle(bundle.path)
    assert {name: opened.read(name) for name in opened.manifest.files} == content
    assert opened.graph() == content["model.onnx"]
    assert opened.names("heads") == ("default",)
    assert opened.names("detectors") == ("knn",)
    assert opened.arrays("detectors/knn.npz")["memory"].shape == (3, 2)
    assert opened.golden().images.shape == (2, 4, 4, 1)
    np.testing.assert_array_equal(opened.golden().embeddings, np.eye(2))


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_any_flipped_byte_of_any_file_is_found(bundle: Bundle, data: st.DataObject) -> None:
    path = bundle.path / data.draw(st.sampled_from(every_file(bundle)))
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    try:
        with pytest.raises(BundleDamaged):
            Bundle(bundle.path)
    finally:
        path.write_bytes(original)
    Bundle(bundle.path)


def test_every_single_byte_of_the_manifest_counts(bundle: Bundle) -> None:
    original = (bundle.path / MANIFEST).read_bytes()
    for position in range(len(original)):
        changed = bytearray(original)
        changed[position] ^= 1
        with pytest.raises(BundleDamaged):
            Manifest.from_bytes(bytes(changed))


@pytest.mark.parametrize("change", ["shorter", "longer", "missing"])
def test_truncated_grown_and_missing_files_are_found(bundle: Bundle, change: str) -> None:
    for name in every_file(bundle):
        folder = bundle.path.parent / "2"
        shutil.copytree(bundle.path, folder)
        path = folder / name
        if change == "missing":
            path.unlink()
        else:
            original = path.read_bytes()
            path.write_bytes(original[:-1] if change == "shorter" else original + b"\0")
        with pytest.raises(
            NotFound if path.name == MANIFEST and change == "missing" else BundleDamaged
        ):
            Bundle(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["extra.txt", "heads/other.npz", ".hidden", "deep/er/file"])
def test_extra_files_are_found(bundle: Bundle, name: str) -> None:
    (bundle.path / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle.path / name).write_bytes(b"")
    with pytest.raises(BundleDamaged, match=r"expected only recorded files"):
        Bundle(bundle.path)


def test_links_are_refused_even_to_equal_content(bundle: Bundle, tmp_path: Path) -> None:
    inside = bundle.path / "CARD.md"
    outside = tmp_path / "card"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(BundleDamaged, match="plain file"):
        Bundle(bundle.path)


def test_a_linked_folder_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / "more").symlink_to(tmp_path)
    with pytest.raises(BundleDamaged, match="more"):
        Bundle(bundle.path)


def test_a_pipe_in_a_files_place_is_an_error_and_never_a_wait(bundle: Bundle) -> None:
    (bundle.path / "CARD.md").unlink()
    os.mkfifo(bundle.path / "CARD.md")
    with pytest.raises(BundleDamaged, match="plain file"):
        Bundle(bundle.path)


def test_without_verification_a_file_is_still_checked_when_read(bundle: Bundle) -> None:
    (bundle.path / "model.onnx").write_bytes(b"changed")
    opened = Bundle(bundle.path, verify=False)
    with pytest.raises(BundleDamaged, match=r"model\.onnx"):
        opened.graph()


def test_no_bundle_unknown_file_unknown_head_and_precision_are_not_found(
    bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="expected a bundle"):
        Bundle(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"CARD\.md"):
        bundle.read("../../secret")
    with pytest.raises(NotFound, match="default"):
        bundle.head("other")
    with pytest.raises(NotFound, match=r"\['fp32'\], got 'int8'"):
        bundle.graph("int8")
    with pytest.raises(InvalidInput, match="fp32"):
        bundle.graph("fp8")


def test_model_digest_depends_on_graph_and_input_alone(write, content) -> None:
    first = write(1)
    again = write(2, {**content, "CARD.md": b"another"})
    other = write(3, {**content, "model.onnx": b"another"})
    assert first.model_digest() == again.model_digest()
    assert first.model_digest() != other.model_digest()
    assert first.model_digest().startswith("sha256:")


def test_the_default_head_wins_over_the_first_by_name(write, content, bundle: Bundle) -> None:
    named = write(2, {**content, "heads/a.npz": content["heads/default.npz"]})
    assert named.names("heads") == ("a", "default")
    assert named.head().class_names == ("left", "right")
    without = {k: v for k, v in content.items() if not k.startswith("heads/")}
    with pytest.raises(NotFound, match="head"):
        write(3, without).head()


def test_a_golden_or_head_file_with_other_arrays_is_damage(write, content) -> None:
    swapped = {
        **content,
        "golden.npz": content["heads/default.npz"],
        "heads/default.npz": content["golden.npz"],
    }
    damaged = write(2, swapped)
    with pytest.raises(BundleDamaged, match=r"golden\.npz"):
        damaged.golden()
    with pytest.raises(BundleDamaged, match="default"):
        damaged.head()
