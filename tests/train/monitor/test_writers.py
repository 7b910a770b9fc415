"""Lines in TensorBoard's and W&B's own logs, read back by those packages."""

import importlib.util
import json
import struct
from itertools import pairwise

import pytest

from embedkit.errors import MissingDependency
from embedkit.train.loop import train


class CrashError(Exception):
    """Stands for a crash."""


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def records(data):
    """Records of a ``.wandb`` file: seven bytes, then a LevelDB log in blocks of 32 KiB."""
    assert data[:4] == b":W&B"
    place, parts = 7, []
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        # 1: whole, 2: first, 3: middle, 4: last.
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_package_that_is_not_there_is_named_with_its_extra(small, tmp_path, name):
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(MissingDependency, match=rf"{name}.*embedkit\[monitor\].*run\.writers"):
        train(small(run={"writers": [name]}), tmp_path / "run")


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_every_line_of_a_run_that_was_cut(small, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = small(run={"writers": ["tensorboard"], "probe_steps": 2, "probe_images": 20})
    out = tmp_path / "run"

    def crash(progress):
        if progress.step == 5:
            raise CrashError

    with pytest.raises(CrashError):
        train(recipe, out, report=crash)
    train(recipe, out, resume=True)
    log = EventAccumulator(str(out / "tensorboard"))
    log.Reload()
    for tag, key in (("loss/total", "loss"), ("optimiser/lr", "lr"), ("embeddings/knn", "knn")):
        expected = [(line["step"], line[key]) for line in lines(out) if key in line]
        # Steps after the checkpoint were written twice: the later value counts.
        found = {event.step: event.value for event in log.Scalars(tag)}
        assert found == pytest.approx(dict(expected))
    steps = [event.step for event in log.Scalars("loss/total")]
    assert all(a < b for a, b in pairwise(steps))
    assert set(log.Tags()["scalars"]) >= {"loss/contrast", "embeddings/effective_rank"}


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_wandb_has_every_line_offline(small, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "run"
    train(small(run={"writers": ["wandb"]}), out)
    (path,) = (out / "wandb").glob("offline-run-*/*.wandb")
    losses, config = {}, {}
    for data in records(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            config |= {
                item.key: json.loads(item.value_json) for item in record.run.config.update
            }
        if record.WhichOneof("record_type") == "history":
            items = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
                for item in record.history.item
            }
            losses[items["_step"]] = items["loss/total"]
    assert losses == pytest.approx({line["step"]: line["loss"] for line in lines(out)})
    assert config["objective"]["name"] == "simclr"
