"""The worked application, as a user runs it: real files, a real server, its own output."""

import importlib.util
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import embedkit
from embedkit.data.source import load_dataset
from embedkit.errors import InvalidInput, NotFound
from embedkit.serve.server import running_server


@pytest.fixture(scope="module")
def example(repository):
    """The example as a module."""
    path = repository / "examples" / "photo_search.py"
    spec = importlib.util.spec_from_file_location("photo_search", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["photo_search"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of each of three digits, in albums, one of them twice as large."""
    digits = load_dataset("digits")
    labels = np.asarray(digits.labels)
    for digit in (0, 1, 7):
        album = tmp_path / "photos" / f"digit {digit}"
        album.mkdir(parents=True)
        for number, row in enumerate(np.flatnonzero(labels == digit)[:12]):
            image = Image.fromarray(digits.images[row][:, :, 0])
            size = (64, 64) if number % 2 else (32, 32)
            image.resize(size, Image.Resampling.NEAREST).save(album / f"{number}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"not an image")
    return tmp_path / "photos"


@pytest.fixture
def address(repository, tmp_path):
    with running_server(models=repository / "models", data_dir=tmp_path / "var") as address:
        yield address


def test_index_search_with_a_filter_and_duplicates(example, folder, address):
    with embedkit.connect(address) as client:
        assert example.index(client, "photos", folder) == 36
        query = folder / "digit 7" / "0.png"
        hits = example.search(client, "photos", query, k=5)
        assert hits[0].id == "digit 7/0.png"
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert sum(hit.payload["album"] == "digit 7" for hit in hits) >= 4
        large = example.search(client, "photos", query, where="width = 64 and album != 'x'")
        assert len(large) == 10
        assert {hit.payload["width"] for hit in large} == {64}
        assert example.search(client, "photos", query, where="album = 'cats'") == []

        shutil.copy(query, folder / "digit 7" / "copy.png")
        assert example.index(client, "photos", folder) == 1
        found = example.duplicates(client, "photos", least=0.99999)
        named = {(pair.first, pair.second) for pair in found.pairs}
        assert ("digit 7/0.png", "digit 7/copy.png") in named
        assert all(pair.score >= 0.99999 - 1e-6 for pair in found.pairs)
        assert (found.exact, found.cut) == (True, False)

        (folder / "digit 7" / "copy.png").unlink()
        assert example.index(client, "photos", folder) == 0
        assert client.describe("photos").count == 36


def test_as_a_command(example, folder, address, monkeypatch, capsys):
    query = str(folder / "digit 0" / "1.png")
    arguments = [str(folder), "--server", address, "--query", query, "--duplicates", "0.9999"]
    monkeypatch.setattr(sys, "argv", ["photo_search.py", *arguments])
    example.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "sent 36 photos; photos holds 36"
    assert said[1] == "1.0000  digit 0/1.png"


def test_what_is_no_folder_of_photos_removes_nothing(
    example, folder, address, tmp_path, repository
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    shutil.copy(folder / "broken.jpg", tmp_path / "damaged")
    with embedkit.connect(address) as client:
        example.index(client, "photos", folder)
        with pytest.raises(NotFound, match=r"a folder of photos, .*/nope, got nothing there"):
            example.index(client, "photos", tmp_path / "nope")
        with pytest.raises(NotFound, match="got a file"):
            example.index(client, "photos", folder / "notes.txt")
        for name in ("empty", "damaged"):
            with pytest.raises(InvalidInput, match=r"holds 36.*embedkit index drop photos"):
                example.index(client, "photos", tmp_path / name)
        script = str(repository / "examples" / "photo_search.py")
        run = subprocess.run(
            [sys.executable, script, str(tmp_path / "nope"), "--server", address],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 1
        assert run.stderr.startswith("photo_search.py: expected a folder of photos")
        assert run.stderr.count("\n") == 1
        assert client.describe("photos").count == 36
        assert example.index(client, "new", tmp_path / "empty") == 0


def test_files_that_are_no_images_are_named_and_the_others_sent(
    example, folder, address, rng, capsys
):
    # Declares 225 million pixels in some bytes of nothing.
    Image.new("1", (15_000, 15_000)).save(folder / "huge.png")
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(folder / "digit 7" / "cut.jpg")
    whole = (folder / "digit 7" / "cut.jpg").read_bytes()
    (folder / "digit 7" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(folder / "pipe.png")
    with embedkit.connect(address) as client:
        assert example.index(client, "photos", folder) == 36
        said = capsys.readouterr().err.splitlines()
        assert sorted(line.split(":")[0] for line in said) == [
            "left out broken.jpg",
            "left out digit 7/cut.jpg",
            "left out huge.png",
            "left out pipe.png",
        ]
        assert any("15,000 x 15,000" in line for line in said)

        # A photo that is there and damaged is not gone.
        (folder / "digit 7" / "0.png").write_bytes(b"\x89PNG")
        (folder / "digit 7" / "1.png").unlink()
        assert example.index(client, "photos", folder) == 0
        kept = client.get("photos", ["digit 7/0.png", "digit 7/1.png"])
        assert [record is not None for record in kept] == [True, False]


def test_a_name_that_is_no_text_is_left_out_and_the_others_sent(
    example, folder, address, capsys
):
    try:
        shutil.copy(folder / "digit 7" / "0.png", os.fsencode(folder / "bad") + b"\xff.png")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    with embedkit.connect(address) as client:
        assert example.index(client, "photos", folder) == 36
        assert client.describe("photos").count == 36
    said = capsys.readouterr().err
    assert r"left out 'bad\udcff.png': expected a name in UTF-8" in said


def test_a_server_without_models_is_told(example, folder, tmp_path):
    (tmp_path / "none").mkdir()
    with (
        running_server(models=tmp_path / "none", data_dir=tmp_path / "var") as address,
        embedkit.connect(address) as client,
        pytest.raises(NotFound, match="a server with a model, got none"),
    ):
        example.index(client, "photos", folder)


def test_duplicates_that_are_not_all_say_so(example, tmp_path, address, monkeypatch, capsys):
    """A photo's duplicates are looked at up to 100; here each has more."""
    same = tmp_path / "same"
    same.mkdir()
    for number in range(110):
        Image.new("L", (28, 28), 200).save(same / f"{number}.png")
    arguments = [str(same), "--server", address, "--duplicates", "0.9999"]
    monkeypatch.setattr(sys, "argv", ["photo_search.py", *arguments])
    example.main()
    said = capsys.readouterr().out
    assert "there are more: a photo has more than were looked at" in said
    assert "there may be more" not in said
