"""Images read as training goes on: the same run as from memory, in bounded memory."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from embedkit.errors import InvalidInput, NotFound
from embedkit.preprocess import InputSpec
from embedkit.train.images import load_images
from embedkit.train.images.lazy import open_lazily
from embedkit.train.images.stream import Stream
from embedkit.train.loop import train
from embedkit.train.objective import build_objective

CPU = torch.device("cpu")
SIZE = {"height": 8, "width": 8, "channels": 3}


@pytest.fixture
def array(tmp_path, rng):
    """The same images as ``x.npz`` and as ``x.npy`` with their classes."""
    images, labels = rng.integers(0, 256, (70, 8, 8, 1), np.uint8), np.arange(70) % 3
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "x.labels.npy", labels)
    return tmp_path


@pytest.fixture
def photos(tmp_path, rng):
    folder = tmp_path / "photos"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (9 + number, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def weights(path):
    return (path / "encoder.safetensors").read_bytes()


@pytest.mark.parametrize("objective", ["simclr", "supcon"])
def test_a_stream_trains_the_same_weights_as_memory(small, array, objective):
    sections = {"objective": {"name": objective}, "optimiser": {"perturbation": "sam"}}
    whole = small(data={"source": str(array / "x.npz")}, **sections)
    stream = small(data={"source": str(array / "x.npy"), "stream": True}, **sections)
    train(whole, array / "whole")
    train(stream, array / "stream")
    assert weights(array / "whole") == weights(array / "stream")


def test_a_folder_trains_the_same_weights_and_goes_on_at_the_right_place(
    small, photos, tmp_path
):
    data, size = {"source": str(photos), "limit": 0}, {"input": SIZE}
    train(small(data=data, **size), tmp_path / "whole")
    recipe = small(data={**data, "stream": True, "stream_mb": 1}, **size)

    def crash(progress):
        if progress.step == 3:
            raise KeyError

    recipe_cut = recipe
    with pytest.raises(KeyError):
        train(recipe_cut, tmp_path / "cut", report=crash)
    train(recipe_cut, tmp_path / "cut", resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")


def test_what_is_expected_is_bounded_and_what_is_not_is_forgotten(array):
    data, spec = open_lazily(str(array / "x.npy")), InputSpec(height=8, width=8, channels=1)
    stream = Stream(data, spec, CPU, megabytes=1)
    batches = list(torch.randperm(70).split(10))
    stream.expect(batches)
    assert len(stream._waiting) == 7
    stream._megabytes = 0
    stream.expect(batches[3:])
    # The one that is needed now, and the next.
    assert list(stream._waiting) == [b.numpy().tobytes() for b in batches[3:5]]
    images = np.load(array / "x.npy")
    assert np.array_equal(stream[batches[3]].numpy(), images[batches[3]])
    assert np.array_equal(stream[batches[0]].numpy(), images[batches[0]])
    part = stream.part(torch.tensor([5, 3, 60]))
    assert np.array_equal(part[torch.tensor([2, 0])].numpy(), images[[60, 5]])


def test_statistics_classes_and_size_come_with_the_stream(small, array):
    recipe = small(data={"source": str(array / "x.npy"), "stream": True, "limit": 30})
    loaded = load_images(recipe, build_objective("supcon", {}), CPU)
    images = np.load(array / "x.npy")[:30] / 255
    assert loaded.mean == pytest.approx((images.mean(),), abs=1e-6)
    assert loaded.images.shape == (30, 8, 8, 1)
    assert loaded.labels.tolist() == [i % 3 for i in range(30)]
    assert loaded.class_names == ("0", "1", "2")
    whole = small(data={"source": str(array / "x.npy"), "stream": True, "limit": 0})
    assert load_images(whole, build_objective("simclr", {}), CPU).digest != loaded.digest


def test_another_image_of_the_batch_takes_the_place_of_an_unreadable_one(photos, caplog):
    for name in ("cat/7.png", "dog/3.png"):
        (photos / name).write_bytes(b"no image")
    data = open_lazily(str(photos))
    stream = Stream(data, InputSpec(**SIZE), CPU, megabytes=1)
    bad = [data.ids.index(name) for name in ("cat/7.png", "dog/3.png")]
    good = [i for i in range(40) if i not in bad][:4]
    batch = torch.tensor([good[0], bad[0], bad[1], good[1], good[2], bad[0]])
    for _ in range(2):
        stream.expect([batch])
        taken = stream.readable(batch)
        assert taken.tolist() == [good[i] for i in (0, 1, 1, 1, 2, 0)]
        assert torch.equal(stream[taken], stream[batch])
        assert torch.equal(stream[batch][1], stream[torch.tensor(good[1:2])][0])
    assert stream.unreadable == set(bad)
    assert [r.getMessage().count("takes the place") for r in caplog.records] == [1, 1]
    assert not stream[torch.tensor(bad[:1])].any()
    with pytest.raises(InvalidInput, match=r"among 2 of photos, got none \(.*--out"):
        stream.readable(torch.tensor(bad))


def test_a_run_over_unreadable_files_ends_and_goes_on_to_the_bit(small, photos, tmp_path):
    for name in ("cat/7.png", "dog/3.png"):
        data = (photos / name).read_bytes()
        (photos / name).write_bytes(data[: len(data) // 2])
    data = {"source": str(photos), "limit": 0, "stream": True}
    recipe = small(data=data, input=SIZE, objective={"name": "supcon"})
    whole = train(recipe, tmp_path / "whole")

    def crash(progress):
        if progress.step == 3:
            raise KeyError

    with pytest.raises(KeyError):
        train(recipe, tmp_path / "cut", report=crash)
    cut = train(recipe, tmp_path / "cut", resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")
    assert (whole.skipped, cut.skipped) == (2, 2)


def test_the_label_is_that_of_the_image_which_took_the_place(small, photos):
    for file in (photos / "cat").iterdir():
        file.write_bytes(b"no image")
    data = {"source": str(photos), "limit": 0, "stream": True}
    images = load_images(small(data=data, input=SIZE), build_objective("supcon", {}), CPU)
    for step in range(4):
        taken = images.indices(step, batch_size=16, seed=0)
        assert images.labels[taken].tolist() == [1] * 16
    assert images.skipped == 20


def test_under_strict_an_unreadable_file_is_named_when_its_turn_comes(small, photos, tmp_path):
    (photos / "cat" / "7.png").write_bytes(b"no image")
    data = {"source": str(photos), "limit": 0, "stream": True, "strict": True}
    with pytest.raises(InvalidInput, match=r"cat/7\.png.*--resume.*--out.*data\.strict=false"):
        train(small(data=data, input=SIZE), tmp_path / "run")


def test_no_more_is_asked_for_than_may_wait(small, array, monkeypatch):
    recipe = small(data={"source": str(array / "x.npy"), "stream": True, "limit": 0})
    images = load_images(recipe, build_objective("simclr", {}), CPU)
    asked: list[list[torch.Tensor]] = []
    monkeypatch.setattr(images.images, "expect", asked.append)
    monkeypatch.setattr(images.images, "_megabytes", 0)
    for step in range(4):
        images.indices(step, batch_size=16, seed=0)
    assert [[len(batch) for batch in batches] for batches in asked] == [[16, 16]] * 3 + [[16]]


def test_what_cannot_be_streamed_is_refused(array):
    with pytest.raises(InvalidInput, match=r"FILE\.npy.*data\.stream"):
        open_lazily(str(array / "x.npz"))
    with pytest.raises(NotFound, match="no_such"):
        open_lazily(str(array / "no_such.npy"))
    with pytest.raises(NotFound, match=r"^expected a folder of images or FILE\.npy.*'digits'"):
        open_lazily("digits")
    for name, bad in (
        ("float", np.zeros((3, 8, 8, 1))),
        ("fortran", np.asfortranarray(np.zeros((3, 8, 8, 3), np.uint8))),
    ):
        np.save(array / f"{name}.npy", bad)
        with pytest.raises(InvalidInput, match=name):
            open_lazily(str(array / f"{name}.npy"))
    np.save(array / "x.labels.npy", np.zeros(3, np.int64))
    with pytest.raises(InvalidInput, match="70 class indices"):
        open_lazily(str(array / "x.npy"))
    (array / "torn.npy").write_bytes((array / "x.npy").read_bytes()[:100])
    with pytest.raises(InvalidInput, match=r"torn\.npy"):
        open_lazily(str(array / "torn.npy"))


PEAK = """
import resource, sys
from embedkit.train.loop import train
from embedkit.train.recipe import Recipe
train(Recipe.load(sys.argv[1], sys.argv[3:]), sys.argv[2], device="cpu")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mb(recipe, out, *overrides):
    """Largest resident memory of a process that trains, in megabytes."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(recipe), str(out), *overrides],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return int(done.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(small, tmp_path):
    """600 MB of images in as much memory as 3 MB of them, and the 16 MB that may wait."""
    for name, count in (("small", 1_000), ("large", 200_000)):
        shape = (count, 32, 32, 3)
        path = tmp_path / f"{name}.npy"
        file = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        rng = np.random.default_rng(0)
        for start in range(0, count, 10_000):
            rows = file[start : start + 10_000]
            rows[:] = rng.integers(0, 256, rows.shape, np.uint8)
        del file
    schedule = {"batch_size": 256, "max_steps": 40, "epochs": 20}
    data = {"source": "x", "limit": 0, "stream": True, "stream_mb": 16}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(small(data=data, schedule=schedule, augmentation="none").to_toml())
    sources = {name: f"data.source={tmp_path / name}.npy" for name in ("small", "large")}
    peaks = {n: peak_mb(recipe, tmp_path / f"run-{n}", s) for n, s in sources.items()}
    assert peaks["large"] < peaks["small"] + 16 + 64, peaks
