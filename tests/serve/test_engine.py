"""Loaded models and the engine over real sessions, without gRPC."""

import functools
import io
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

from embedkit.bundle import Golden
from embedkit.errors import (
    BadImage,
    BundleDamaged,
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    MessageTooLarge,
    NotFound,
    QueueFull,
)
from embedkit.serve.answer import Answer, Query
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.engine import Engine, EngineConfig, choose_bundles

EVERYTHING = frozenset({"embedding", "features", "class"})


@pytest.fixture
def engine(tiny_models):
    engine = Engine(EngineConfig(BatchLimits(4, 16), threads=1))
    engine.load(tiny_models / "tiny" / "1")
    yield engine
    engine.close(10)


@pytest.fixture
def model(engine):
    return engine.get("tiny")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def block(model):
    """Make the model's session wait for an event before each run."""
    session = model.crew.sessions[0]
    may_run, original = threading.Event(), session.run

    def held(images, outputs):
        assert may_run.wait(10)
        return original(images, outputs)

    session.run = held
    return may_run


def poison(model, image):
    """Make the model's session fail on one image."""
    session = model.crew.sessions[0]
    original = session.run

    def picky(batch, outputs):
        if (batch == image).all(axis=(1, 2, 3)).any():
            raise RuntimeError("poison")
        return original(batch, outputs)

    session.run = picky


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_rows_are_the_references_in_order(model, reference, head, rng, count):
    images = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    answer = model.infer(Query(images, EVERYTHING))
    features = reference(images)
    np.testing.assert_allclose(answer.rows["features"], features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer.rows["embedding"], unit(features), atol=1e-6)
    np.testing.assert_array_equal(answer.rows["labels"], head.logits(features).argmax(axis=1))
    assert (answer.errors, answer.batch_size) == ({}, min(count, 4))
    assert min(answer.queue_s, answer.decode_s, answer.infer_s) >= 0


def test_files_and_pixels_give_the_same_rows(model, images):
    files = model.infer(Query([png(image) for image in images]))
    pixels = model.infer(Query(images))
    np.testing.assert_allclose(files.rows["embedding"], pixels.rows["embedding"], atol=1e-6)


def test_pixels_of_another_size_are_converted_as_a_file_would_be(model, rng):
    large = rng.integers(0, 256, (2, 9, 7, 1), dtype=np.uint8)
    as_files = model.infer(Query([png(image[:, :, 0]) for image in large]))
    as_pixels = model.infer(Query(large))
    np.testing.assert_allclose(
        as_files.rows["embedding"], as_pixels.rows["embedding"], atol=1e-6
    )


def test_requests_of_many_threads_merge_and_stay_apart(engine, model, reference, rng):
    sets = [rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8) for n in (1, 2, 1, 3, 1)]
    may_run = block(model)
    answers: dict[int, Answer] = {}

    def ask(i):
        answers[i] = model.infer(Query(sets[i]))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(sets))]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    may_run.set()
    for thread in threads:
        thread.join(10)
    for i, images in enumerate(sets):
        np.testing.assert_allclose(
            np.asarray(answers[i].rows["embedding"], float), unit(reference(images)), atol=1e-6
        )
    assert max(a.batch_size for a in answers.values()) == 4


def test_a_bad_file_among_several_fails_alone(model, images):
    files = [png(images[0]), b"junk", png(images[1])]
    answer = model.infer(Query(files, EVERYTHING))
    alone = model.infer(Query(images[:2], EVERYTHING))
    assert list(answer.errors) == [1]
    for name, rows in answer.rows.items():
        np.testing.assert_allclose(rows[[0, 2]], alone.rows[name], atol=1e-6)
        assert not rows[1].any()


def test_only_bad_files_give_zeros_and_their_errors(model):
    answer = model.infer(Query([b"a", b"b"], EVERYTHING))
    assert sorted(answer.errors) == [0, 1]
    assert answer.rows["embedding"].shape == (2, 8)
    assert answer.rows["probabilities"].shape == (2, 3)
    assert not any(rows.any() for rows in answer.rows.values())


def test_a_lone_bad_file_is_an_error(model):
    with pytest.raises(BadImage):
        model.infer(Query([b"junk"]))


def test_a_poisonous_image_fails_alone(model, images, caplog):
    poison(model, images[2])
    answer = model.infer(Query(images[:4]))
    assert list(answer.errors) == [2]
    assert not answer.rows["embedding"][2].any()
    assert answer.rows["embedding"][[0, 1, 3]].any(axis=1).all()
    with pytest.raises(RuntimeError, match="poison"):
        model.infer(Query(images[2:3]))


def test_files_and_poison_fail_at_their_own_places(model, images, caplog):
    poison(model, images[2])
    answer = model.infer(Query([b"junk", png(images[1]), b"junk", png(images[2])]))
    assert sorted(answer.errors) == [0, 2, 3]
    assert isinstance(answer.errors[3], RuntimeError)
    assert answer.rows["embedding"].any(axis=1).tolist() == [False, True, False, False]


def test_outputs_that_the_model_lacks_are_not_found(model, images):
    with pytest.raises(NotFound, match="got ood_score, tokens"):
        model.infer(Query(images, frozenset({"tokens", "ood_score"})))


def test_tokens_come_with_their_axes(tmp_path, write_tiny, images):
    write_tiny(tmp_path, tokens=True)
    engine = Engine(EngineConfig(BatchLimits(4, 16), threads=1))
    model = engine.load(tmp_path / "tiny" / "1")
    assert model.answers == ("embedding", "features", "tokens", "class")
    rows = model.infer(Query(images, frozenset({"tokens", "features"}))).rows
    np.testing.assert_array_equal(rows["tokens"].reshape(5, 8), rows["features"])
    engine.close(10)


def test_requests_with_different_outputs_share_a_batch(model, images):
    may_run = block(model)
    answers = {}

    def ask(name):
        answers[name] = model.infer(Query(images[:2], frozenset({name})))

    threads = [threading.Thread(target=ask, args=(n,)) for n in ("embedding", "features")]
    for thread in threads:
        thread.start()
    may_run.set()
    for thread in threads:
        thread.join(10)
    np.testing.assert_allclose(
        unit(answers["features"].rows["features"]),
        answers["embedding"].rows["embedding"],
        atol=1e-6,
    )


@pytest.mark.parametrize("images", [np.empty((0, 4, 4, 3), np.uint8), []])
def test_no_image_is_an_error(model, images):
    with pytest.raises(InvalidInput, match="at least one image"):
        model.infer(Query(images))


def test_limits_are_checked_before_anything_is_decoded(model):
    with pytest.raises(MessageTooLarge):
        model.infer(Query([b"junk"] * 17))


def test_a_full_line_refuses_and_recovers(model, images):
    may_run = block(model)
    ask = functools.partial(model.infer, Query(images[:4]))
    waiting = [threading.Thread(target=ask) for _ in range(5)]
    for thread in waiting:
        thread.start()
        time.sleep(0.02)
    with pytest.raises(QueueFull):
        model.infer(Query(images[:4]))
    may_run.set()
    for thread in waiting:
        thread.join(10)
    assert model.infer(Query(images[:4])).batch_size == 4


def test_a_caller_that_has_gone_is_not_served(model, images):
    with pytest.raises(Cancelled):
        model.infer(Query(images, watch=lambda cancel: False))


def test_a_caller_that_goes_away_frees_its_thread(model, images):
    may_run = block(model)

    def leave(cancel):
        threading.Timer(0.05, cancel).start()
        return True

    with pytest.raises(Cancelled):
        model.infer(Query(images, watch=leave))
    may_run.set()


def test_warm_up_runs_every_bucket_once(tiny_models, monkeypatch):
    from embedkit.runtime.session import Session

    sizes, original = [], Session.run

    def run(self, images, outputs):
        sizes.append(len(images))
        return original(self, images, outputs)

    monkeypatch.setattr(Session, "run", run)
    engine = Engine(EngineConfig(BatchLimits(12, 100), threads=1))
    engine.load(tiny_models / "tiny" / "1")
    golden = 4
    assert sorted(sizes) == sorted([golden, 1, 2, 4, 8, 12])
    engine.close(10)


def test_models_are_found_by_name_and_version(tmp_path, write_tiny, images, reference):
    for version, seed in ((1, 0), (2, 1), (10, 2)):
        write_tiny(tmp_path, version=version, seed=seed)
    engine = Engine(EngineConfig(BatchLimits(4, 16), threads=1))
    for path in choose_bundles(tmp_path, ["tiny:2", "tiny:10", "tiny:1"]):
        engine.load(path)
    assert engine.get().version == "10"
    assert engine.get("tiny", "2").version == "2"
    vectors, digest = engine.embed("tiny", images)
    np.testing.assert_allclose(vectors, unit(reference(images, 2)), atol=1e-6)
    assert digest == engine.get("tiny").digest
    for name, wanted in (("tiny", "3"), ("other", "")):
        with pytest.raises(NotFound, match="tiny:1"):
            engine.get(name, wanted)
    engine.close(10)


def test_an_empty_name_needs_a_single_model(tmp_path, write_tiny):
    write_tiny(tmp_path, name="one")
    write_tiny(tmp_path, name="two")
    engine = Engine(EngineConfig(BatchLimits(4, 16), threads=1))
    for path in choose_bundles(tmp_path, []):
        engine.load(path)
    assert [m.name for m in engine.models] == ["one", "two"]
    with pytest.raises(InvalidInput, match="'one', 'two'"):
        engine.get()
    engine.close(10)


def test_the_latest_of_each_model_is_chosen(tmp_path, write_tiny):
    for name, version in (("one", 1), ("one", 2), ("two", 1)):
        write_tiny(tmp_path, name=name, version=version)
    chosen = [p.relative_to(tmp_path).as_posix() for p in choose_bundles(tmp_path, [])]
    assert chosen == ["one/2", "two/1"]
    with pytest.raises(NotFound, match="three"):
        choose_bundles(tmp_path, ["three"])


def test_embed_raises_for_the_first_bad_image(engine, images):
    with pytest.raises(BadImage, match="start with"):
        engine.embed("", [png(images[0]), b"junk"])


def test_embed_gives_up_in_time(engine, model, images):
    may_run = block(model)
    with pytest.raises(DeadlineExceeded):
        engine.embed("tiny", images, 0.05)
    may_run.set()


def test_embed_does_not_run_for_who_has_gone(engine, images):
    with pytest.raises(Cancelled):
        engine.embed("tiny", images, watch=lambda cancel: False)


def test_a_bundle_with_other_golden_embeddings_is_not_served(tmp_path, write_tiny, rng):
    images = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    wrong = Golden(images, np.eye(2, 8, dtype=np.float32))
    write_tiny(tmp_path, extra={"golden.npz": wrong.to_bytes()})
    engine = Engine()
    with pytest.raises(BundleDamaged, match="golden"):
        engine.load(tmp_path / "tiny" / "1")
    engine.close(10)


def test_threads_out_of_range_are_refused():
    with pytest.raises(InvalidInput, match="at least 0"):
        EngineConfig(threads=-1)


def test_a_bundle_in_the_place_of_another_is_refused(tmp_path, write_tiny):
    write_tiny(tmp_path, name="one")
    engine = Engine(EngineConfig(BatchLimits(4, 16), threads=1))
    for place in ("other/1", "one/7"):
        shutil.copytree(tmp_path / "one" / "1", tmp_path / place)
        with pytest.raises(BundleDamaged, match="one/1: move it there"):
            engine.load(tmp_path / place)
    assert engine.models == ()
    engine.close(10)
