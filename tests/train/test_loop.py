"""The loop: it learns, it is reproducible to the bit, and it stops with a reason."""

import dataclasses
import json
import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from embedkit.errors import (
    InvalidInput,
    MissingDependency,
    TrainingDiverged,
)
from embedkit.train.loop import train
from embedkit.train.monitor import Progress
from embedkit.train.objective import Distilling, Loss, objectives
from embedkit.train.settings import Named
from tests.train.runs import (
    STEPS,
    CrashError,
    assert_same_weights,
    metrics,
    train_until,
    weights,
)


def test_a_run_leaves_what_its_folder_promises(small, tmp_path):
    result = train(small(), tmp_path / "run")
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {
        "recipe.toml",
        "metrics.jsonl",
        "checkpoint.pt",
        "encoder.safetensors",
        "encoder.json",
        "run.json",
        "report.html",
    }
    assert result.steps == STEPS
    assert result.images == 70
    assert result.skipped == 0
    assert result.loss == metrics(tmp_path / "run")[-1]["loss"]
    assert result.measures["effective_rank"] == metrics(tmp_path / "run")[-1]["effective_rank"]
    assert result.objective == "simclr"
    assert result.recipe_digest == small().digest
    assert result.data_digest.startswith("sha256:")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == STEPS


def test_the_saved_encoder_can_be_rebuilt(small, tmp_path):
    from embedkit.encoders.encoder import build_encoder

    train(small(), tmp_path / "run")
    encoder = build_encoder(json.loads((tmp_path / "run" / "encoder.json").read_text()))
    encoder.load_state_dict(weights(tmp_path / "run"))
    assert encoder.mean.item() == pytest.approx(0.305, abs=0.02)
    images = torch.zeros(2, 8, 8, 1, dtype=torch.uint8)
    assert encoder(images).features.shape == (2, encoder.feature_dim)


def test_metrics_have_every_step_and_measure(small, tmp_path):
    seen: list[Progress] = []
    train(small(), tmp_path / "run", report=seen.append)
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines] == [progress.loss for progress in seen]
    for line in lines:
        assert line["parts"]["contrast"] == pytest.approx(line["loss"])
        assert line["images_per_s"] > 0
        assert line["effective_rank"] > 1
        assert line["uniformity"] < 0
        assert 0 <= line["alignment"] <= 4
        assert line["embedding_std"] > 0
    assert lines[-1]["eta_s"] == 0


def test_it_learns(small, tmp_path):
    recipe = small(
        data={"limit": 200},
        schedule={"epochs": 12, "batch_size": 50},
        optimiser={"lr": 5e-3},
        augmentation="characters",
    )
    train(recipe, tmp_path / "run")
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_a_linear_classifier_learns_the_digits(small, tmp_path):
    recipe = small(
        data={"limit": 400},
        objective={"name": "cross_entropy"},
        encoder={"width": 16},
        schedule={"epochs": 8, "batch_size": 50},
        optimiser={"lr": 1e-2},
        augmentation="none",
    )
    result = train(recipe, tmp_path / "run")
    with np.load(tmp_path / "run" / "head.npz", allow_pickle=False) as head:
        assert head["weight"].shape == (10, 32)
        assert head["bias"].shape == (10,)
        assert tuple(head["class_names"]) == result.class_names
    assert result.loss < 0.7


class Grey:
    """An embedder that tells images by their mean level and contrast alone."""

    dim = 2
    digest = "sha256:grey"

    def embed(self, images):
        flat = images.reshape(len(images), -1).astype(np.float32) + 1
        vectors = np.stack([flat.mean(axis=1), flat.std(axis=1)], axis=1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("name", objectives.names())
def test_every_objective_trains_and_goes_on_to_the_bit(small, tmp_path, name):
    kind = objectives.get(name)
    arguments = {"name": name}
    if isinstance(kind(), Distilling):
        one = "teacher" in kind.__dataclass_fields__
        arguments |= {"teacher": "grey"} if one else {"teachers": ["grey", "grey"]}
    recipe = small(objective=arguments, schedule={"max_steps": 3}, run={"checkpoint_steps": 1})
    if kind().needs & {"tokens", "mask", "teacher_blocks"}:
        vit = {"patch": 2, "dim": 8, "depth": 1, "heads": 1}
        recipe = dataclasses.replace(recipe, encoder=Named("vit", vit))
    load = {"grey": Grey()}.__getitem__
    assert np.isfinite(train(recipe, tmp_path / "a", load_bundle=load).loss)

    def report(progress):
        if progress.step == 2:
            raise CrashError

    with pytest.raises(CrashError):
        train(recipe, tmp_path / "b", load_bundle=load, report=report)
    train(recipe, tmp_path / "b", resume=True, load_bundle=load)
    assert_same_weights(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_a_run_may_go_on_from_a_finished_encoder(small, tmp_path):
    train(small(), tmp_path / "first")
    still = {"max_steps": 1, "warmup_epochs": 0}
    recipe = small(
        initial=str(tmp_path / "first"),
        objective={"name": "vicreg"},
        optimiser={"lr": 1e-12, "weight_decay": 0.0},
        schedule=still,
    )
    train(recipe, tmp_path / "second")
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    torch.testing.assert_close(second["net.conv1.weight"], first["net.conv1.weight"])
    fresh = dataclasses.replace(recipe, initial="")
    train(fresh, tmp_path / "fresh")
    conv = weights(tmp_path / "fresh")["net.conv1.weight"]
    assert not torch.allclose(conv, first["net.conv1.weight"], atol=1e-3)
    assert "initial" not in fresh.to_dict()


def test_another_seed_gives_other_weights(small, tmp_path):
    train(small(), tmp_path / "a")
    train(small(seed=2), tmp_path / "b")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert not torch.equal(a["net.conv1.weight"], b["net.conv1.weight"])


def test_the_callers_generator_is_left_alone(small, tmp_path):
    before = torch.get_rng_state()
    train(small(), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_averaged_weights_are_what_is_saved(small, tmp_path):
    train(small(), tmp_path / "last")
    train(small(run={"ema": 0.9}), tmp_path / "averaged")
    last, averaged = weights(tmp_path / "last"), weights(tmp_path / "averaged")
    assert not torch.equal(last["net.conv1.weight"], averaged["net.conv1.weight"])
    # Running statistics are copied, and averaging changes nothing of the training itself.
    assert torch.equal(last["net.bn1.running_mean"], averaged["net.bn1.running_mean"])


def test_it_trains_outside_the_main_thread(small, tmp_path):
    thread = threading.Thread(target=train, args=(small(), tmp_path / "run"))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "run.json").exists()


@dataclass(frozen=True)
class Exploding:
    """A loss that is not finite at step 5."""

    value: float = float("nan")
    needs = frozenset({"projections"})
    views = 1

    def build(self, sizes):
        return None

    def __call__(self, batch):
        scale = self.value if batch.progress >= 4 / STEPS else 1.0
        return Loss.sum(bang=batch.projections.square().mean() * scale)


@dataclass(frozen=True)
class Seeing:
    """Notes which images it is given."""

    needs = frozenset({"projections", "indices"})
    views = 1
    seen: ClassVar[list[int]] = []

    def build(self, sizes):
        return None

    def __call__(self, batch):
        self.seen.extend(batch.indices.tolist())
        return Loss.sum(size=batch.projections.square().mean())


@pytest.fixture(scope="module", autouse=True)
def _registered():
    kinds = {"exploding": Exploding, "seeing": Seeing}
    for name, kind in kinds.items():
        objectives.register(name)(kind)
    yield
    for name in kinds:
        del objectives._entries[name]


def test_an_epoch_is_a_pass_whatever_a_step_accumulates(small, tmp_path):
    """Of 7 batches 6 are two steps: no image comes twice in an epoch."""
    schedule = {"epochs": 3, "batch_size": 10, "accumulate": 3}
    Seeing.seen.clear()
    train(small(objective={"name": "seeing"}, schedule=schedule), tmp_path / "run")
    assert len(Seeing.seen) == 3 * 60
    epochs = [Seeing.seen[first : first + 60] for first in (0, 60, 120)]
    assert [len(set(epoch)) for epoch in epochs] == [60, 60, 60]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_its_batch(small, tmp_path, value):
    recipe = small(objective={"name": "exploding", "value": value})
    with pytest.raises(TrainingDiverged, match=r"after 4 steps.*diverged\.npz.*optimiser\.lr"):
        train(recipe, tmp_path / "run")
    with np.load(tmp_path / "run" / "diverged.npz", allow_pickle=False) as batch:
        assert batch["images"].shape == (16, 8, 8, 1)
        assert batch["images"].dtype == np.uint8
        assert batch["indices"].shape == (16,)
        assert batch["step"] == 4
        assert not np.isfinite(batch["loss_bang"])


def test_the_batch_of_an_attempt_before_is_removed(small, tmp_path):
    left = tmp_path / "run" / "diverged.npz"
    left.parent.mkdir()
    left.touch()
    train(small(), tmp_path / "run")
    assert not left.exists()


def test_a_finite_loss_with_an_infinite_gradient_stops_too(small, tmp_path):
    recipe = small(optimiser={"name": "sgd", "lr": 1e30})
    with pytest.raises(TrainingDiverged):
        train(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    "sections",
    [{"schedule": {"max_steps": 1, "warmup_epochs": 0}}, {"run": {"probe_steps": 1}}],
    ids=["last step", "probe"],
)
def test_a_step_that_makes_the_weights_useless_does_not_pass(small, tmp_path, sections):
    recipe = small(optimiser={"name": "sgd", "lr": 1e30}, **sections)
    with pytest.raises(TrainingDiverged, match=r"finite features after 1 steps.*\.npz"):
        train(recipe, tmp_path / "run")
    with np.load(tmp_path / "run" / "diverged.npz", allow_pickle=False) as batch:
        assert np.isfinite(batch["loss_contrast"])
    assert not (tmp_path / "run" / "run.json").exists()


def test_labels_in_the_message_when_they_are_missing(small, tmp_path):
    np.savez(tmp_path / "set.npz", images=np.zeros((20, 8, 8, 1), np.uint8))
    for name in ("supcon", "cross_entropy"):
        recipe = small(data={"source": str(tmp_path / "set.npz")}, objective={"name": name})
        with pytest.raises(InvalidInput, match=f"labels.*'{name}'.*one folder per class"):
            train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_class_only_is_refused(small, tmp_path):
    images = np.zeros((20, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.zeros(20, np.int64))
    recipe = small(
        data={"source": str(tmp_path / "set.npz")}, objective={"name": "cross_entropy"}
    )
    with pytest.raises(InvalidInput, match=r"at least 2 classes.*got one"):
        train(recipe, tmp_path / "run")


def test_a_batch_larger_than_the_data_is_refused(small, tmp_path):
    with pytest.raises(InvalidInput, match=r"at least 71.*got 70.*lower schedule\.batch_size"):
        train(small(schedule={"batch_size": 71}), tmp_path / "run")


def test_a_step_of_more_batches_than_there_are_is_refused(small, tmp_path):
    recipe = small(schedule={"accumulate": 10})
    with pytest.raises(InvalidInput, match=r"at least 160.*got 70.*schedule\.accumulate"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_cannot_be_built_leaves_no_folder(small, tmp_path):
    with pytest.raises(InvalidInput, match="width"):
        train(small(encoder={"width": 0}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mae", "data2vec", "msn"])
def test_a_single_patch_is_too_few_to_hide_one(small, tmp_path, name):
    vit = {"patch": 8, "dim": 8, "depth": 1, "heads": 1}
    recipe = dataclasses.replace(small(objective={"name": name}), encoder=Named("vit", vit))
    with pytest.raises(InvalidInput, match=r"at least 2 patches.*1 x 1; lower encoder\.patch"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_names_are_refused_with_a_suggestion(small, tmp_path):
    for sections, message in (
        ({"objective": {"name": "simclrr"}}, "did you mean 'simclr'"),
        ({"objective": {"name": "simclr", "temperatur": 1}}, "did you mean 'temperature'"),
        ({"encoder": {"name": "resnet", "widht": 4}}, "did you mean 'width'"),
        ({"augmentation": [{"name": "geometrik"}]}, "did you mean 'geometric'"),
        ({"augmentation": "simclrr"}, "unknown preset 'simclrr'; did you mean 'simclr'"),
        ({"input": {"heigth": 8}}, "did you mean 'height'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            train(small(**sections), tmp_path / "run")


def test_devices(small, tmp_path):
    with pytest.raises(InvalidInput, match="auto, cpu or cuda"):
        train(small(), tmp_path / "run", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(MissingDependency, match="--device cpu"):
            train(small(), tmp_path / "run", device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_and_resumes(small, tmp_path, precision):
    recipe = small(objective={"name": "byol"}, run={"precision": precision})
    train_until(recipe, tmp_path / "run", 5)
    assert np.isfinite(train(recipe, tmp_path / "run", resume=True).loss)
