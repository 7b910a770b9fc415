"""Small image files and collections of them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Return ``picture(level, kind, size)``: a file of one grey level, as RGB."""

    def make(level: int, kind: str = "PNG", size: tuple[int, int] = (6, 5)) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", size, (level, level, level)).save(stream, kind)
        return stream.getvalue()

    return make


@pytest.fixture
def tree(tmp_path, picture) -> Callable[..., Path]:
    """Return ``tree(paths)``: a folder of pictures whose level is their position."""

    def make(*paths: str) -> Path:
        root = tmp_path / "photos"
        root.mkdir()
        for level, path in enumerate(paths):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture(level))
        return root

    return make


@pytest.fixture
def levels() -> Callable[..., list[int]]:
    """Return ``levels(dataset)``: the grey level of each picture, in order."""

    def read(dataset) -> list[int]:
        return [
            int(np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0]) for data in dataset.images
        ]

    return read
