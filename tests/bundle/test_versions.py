"""Finding versions: numbers count as numbers, everything else does not count."""

from pathlib import Path

import pytest

from embedkit.bundle import find_bundle, latest_bundles
from embedkit.errors import NotFound


def test_versions_are_ordered_as_numbers(write, tmp_path: Path) -> None:
    for version in (2, 10, 9):
        write(version)
    models = tmp_path / "models"
    assert find_bundle(models, "tiny").name == "10"
    assert find_bundle(models, "tiny", 9) == find_bundle(models, "tiny", "9")
    assert find_bundle(models, "tiny", "").name == "10"
    assert latest_bundles(models) == {"tiny": models / "tiny" / "10"}


def test_what_is_no_version_does_not_count(write, tmp_path: Path) -> None:
    write(1)
    folder = tmp_path / "models" / "tiny"
    for name in ("02", "²", "٣", "-5", "0", "3.1", "v4", ".writing-x", "99999999999999999999"):
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_text("{}")
    (folder / "7").mkdir()
    (folder / "8").write_text("a file")
    assert find_bundle(tmp_path / "models", "tiny").name == "1"


def test_unknown_models_and_versions_name_what_there_is(write, tmp_path: Path) -> None:
    write(1)
    models = tmp_path / "models"
    with pytest.raises(NotFound, match=r"\['tiny'\].*'tony'"):
        find_bundle(models, "tony")
    with pytest.raises(NotFound, match=r"\[1\].*'2'"):
        find_bundle(models, "tiny", 2)
    for name in ("../models/tiny", "..", "", "tiny/1", "TINY"):
        with pytest.raises(NotFound):
            find_bundle(models, name)
    for version in ("../1", "1/", "latest"):
        with pytest.raises(NotFound):
            find_bundle(models, "tiny", version)


def test_a_missing_folder_has_no_models(tmp_path: Path) -> None:
    assert latest_bundles(tmp_path / "none") == {}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "empty").mkdir()
    (tmp_path / "models" / "Not A Model").mkdir()
    assert latest_bundles(tmp_path / "models") == {}
