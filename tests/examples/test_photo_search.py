"""The worked application, as a user runs it: real files, a real server, its own output."""

import importlib.util
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import embedkit
from embedkit.data.source import load_dataset
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
        pairs = example.duplicates(client, "photos", least=0.99999)
        assert ("digit 7/0.png", "digit 7/copy.png") in {pair[:2] for pair in pairs}
        assert all(score >= 0.99999 - 1e-6 for _, _, score in pairs)

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
