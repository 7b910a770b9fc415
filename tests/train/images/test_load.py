"""Training images: converted, measured, and in an order that can be resumed."""

import numpy as np
import pytest
import torch
from PIL import Image

from embedkit.errors import BadImage, EmbedkitError, InvalidInput, NotFound
from embedkit.train.images import load_images, seed_of
from embedkit.train.objective import build_objective

CPU = torch.device("cpu")
FREE = build_objective("simclr", {})
LABELLED = build_objective("supcon", {})


def test_digits(small):
    images = load_images(small(data={"limit": 0}), LABELLED, CPU)
    assert images.images.shape == (1297, 8, 8, 1)
    assert images.images.dtype == torch.uint8
    assert images.labels is not None
    assert images.labels.shape == (1297,)
    assert len(images.class_names) == 10
    pixels = images.images.numpy() / 255
    assert images.mean == (pytest.approx(pixels.mean(), abs=1e-6),)
    assert images.std == (pytest.approx(pixels.std(), abs=1e-6),)


def test_labels_are_left_out_where_they_are_not_needed(small):
    assert load_images(small(), FREE, CPU).labels is None


def test_limit_takes_the_first_images(small):
    whole = load_images(small(data={"limit": 0}), FREE, CPU)
    part = load_images(small(data={"limit": 30}), FREE, CPU)
    assert torch.equal(part.images, whole.images[:30])
    assert part.digest != whole.digest


def test_statistics_per_channel(small, tmp_path, rng):
    images = rng.integers(0, 256, (20, 5, 4, 3), np.uint8)
    images[..., 2] = 255
    np.savez(tmp_path / "set.npz", images=images)
    loaded = load_images(small(data={"source": str(tmp_path / "set.npz")}), FREE, CPU)
    expected = (images / 255).reshape(-1, 3)
    assert loaded.mean == pytest.approx(tuple(expected.mean(axis=0)), abs=1e-6)
    assert loaded.std[:2] == pytest.approx(tuple(expected.std(axis=0)[:2]), abs=1e-6)
    assert loaded.std[2] == pytest.approx(1e-3)


def test_input_size_can_be_set(small):
    images = load_images(small(input={"height": 12, "width": 10, "channels": 3}), FREE, CPU)
    assert images.images.shape == (70, 12, 10, 3)
    assert images.spec.interpolation == "bilinear"
    assert len(images.mean) == 3


@pytest.fixture
def photos(tmp_path, rng):
    folder = tmp_path / "photos"
    for name, size in (("cat", 20), ("dog", 30)):
        (folder / name).mkdir(parents=True)
        for number in range(9):
            pixels = rng.integers(0, 256, (size, size + number, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_a_folder_needs_an_input_size(small, photos):
    with pytest.raises(InvalidInput, match=r"\[input\] with height, width, channels.*differ"):
        load_images(small(data={"source": str(photos)}), FREE, CPU)


def test_a_folder_of_photographs(small, photos):
    size = {"height": 16, "width": 16, "channels": 3}
    images = load_images(small(data={"source": str(photos)}, input=size), LABELLED, CPU)
    assert images.images.shape == (18, 16, 16, 3)
    assert images.class_names == ("cat", "dog")


def test_unreadable_files_are_counted_or_fatal(small, photos, caplog):
    size = {"height": 16, "width": 16, "channels": 3}
    (photos / "cat" / "broken.png").write_bytes(b"no image")
    recipe = small(data={"source": str(photos)}, input=size)
    assert load_images(recipe, LABELLED, CPU).skipped == 1
    assert "broken.png" in caplog.text
    strict = small(data={"source": str(photos), "strict": True}, input=size)
    with pytest.raises(EmbedkitError, match=r"broken\.png"):
        load_images(strict, LABELLED, CPU)
    for file in photos.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(EmbedkitError, match="photos"):
        load_images(recipe, LABELLED, CPU)


def test_missing_data(small):
    with pytest.raises((NotFound, BadImage), match="no_such"):
        load_images(small(data={"source": "no_such"}), FREE, CPU)


def test_every_epoch_is_another_order_of_all_images(small):
    images = load_images(small(), FREE, CPU)
    epochs = [
        torch.cat([images.indices(s, batch_size=16, seed=0) for s in range(e * 4, e * 4 + 4)])
        for e in range(3)
    ]
    for order in epochs:
        assert len(set(order.tolist())) == 64
        assert 0 <= order.min() <= order.max() < 70
    assert not torch.equal(epochs[0], epochs[1])


def test_batches_depend_on_seed_and_step_alone(small):
    first, second = (load_images(small(), FREE, CPU) for _ in range(2))
    forwards = [first.indices(step, batch_size=16, seed=3) for step in range(10)]
    backwards = [second.indices(step, batch_size=16, seed=3) for step in reversed(range(10))]
    assert all(map(torch.equal, forwards, reversed(backwards)))
    assert not torch.equal(forwards[0], first.indices(0, batch_size=16, seed=4))


def test_seeds_differ_by_purpose_and_number():
    seeds = {seed_of(s, p, n) for s in range(3) for p in ("order", "step") for n in range(50)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
