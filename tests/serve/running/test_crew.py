"""Sessions and threads of a model: canary and restart, over real sessions made to hang."""

import threading
import time

import numpy as np
import pytest

from embedkit.errors import BundleDamaged, DeadlineExceeded, Unavailable
from embedkit.runtime.local import load
from embedkit.serve.answer import Query
from embedkit.serve.batcher import BatchLimits
from embedkit.serve.decode import Decoder
from embedkit.serve.job import Batch, Slice
from embedkit.serve.loaded import LoadedModel
from embedkit.serve.running.crew import Crew
from embedkit.serve.running.station import Station, Work


@pytest.fixture
def local(tiny_models):
    return load(tiny_models / "tiny" / "1", threads=1)


@pytest.fixture
def hang():
    """Make sessions hang until the end of the test; returns an event set when one does."""
    ends = threading.Event()

    def make(session):
        began, original = threading.Event(), session.run

        def run(images, outputs):
            began.set()
            assert ends.wait(20)
            return original(images, outputs)

        session.run = run
        return began

    yield make
    ends.set()


@pytest.fixture
def models(local):
    """Make loaded models that are stopped after the test."""
    made = []

    def make(**options):
        made.append(LoadedModel(local, Decoder(1), BatchLimits(4, 16), **options))
        return made[-1]

    yield make
    for model in made:
        assert model.stop(10)


def asking(model, images, failures):
    """A thread that asks for the embedding of images and keeps the failure."""

    def ask():
        try:
            model.infer(Query(images))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_model_at_work_passes_however_long_its_line(models, images):
    model = models()
    model.crew.check_alive(10)
    threads = [asking(model, images[:4], []) for _ in range(4)]
    model.crew.check_alive(10)
    for thread in threads:
        thread.join(10)
    assert model.crew.restarts == 0


def test_a_stuck_session_fails_and_a_restart_answers_again(models, images, hang, reference):
    model = models()
    model.crew.batch_s = 0.0
    stuck = model.crew.sessions[0]
    began, failures = hang(stuck), []
    threads = [asking(model, images[:1], failures)]
    assert began.wait(10)
    threads += [asking(model, images[:n], failures) for n in (2, 3)]
    with pytest.raises(DeadlineExceeded):
        model.crew.check_alive(0.05)
    model.crew.restart()
    for thread in threads:
        thread.join(10)
    assert [type(error) for error in failures] == [Unavailable] * 3
    assert "restarted" in str(failures[0])
    assert failures[0].retry_s > 0
    model.crew.check_alive(10)
    rows = model.infer(Query(images, frozenset({"features"}))).rows["features"]
    np.testing.assert_allclose(rows, reference(images), rtol=1e-4, atol=1e-5)
    assert model.crew.sessions[0] is not stuck
    assert model.crew.restarts == 1


def test_one_stuck_session_of_two_is_found_though_the_other_answers(models, images, hang):
    model = models(sessions=2)
    model.crew.batch_s = 0.0
    began, failures, threads = hang(model.crew.sessions[0]), [], []
    while not began.is_set():  # until the one that hangs gets a batch
        threads.append(asking(model, images[:1], failures))
        threads[-1].join(0.05)
    time.sleep(0.3)
    assert len(model.infer(Query(images)).rows["embedding"]) == 5
    with pytest.raises(DeadlineExceeded, match="a batch to run for"):
        model.crew.check_alive(0.25)
    model.crew.restart()
    for thread in threads:
        thread.join(10)
    assert failures
    assert len(model.crew.sessions) == 2


def test_a_slow_model_is_given_more_time(models, images, hang):
    model = models()
    began = hang(model.crew.sessions[0])
    thread = asking(model, images, [])
    assert began.wait(10)
    model.crew.batch_s = 0.02
    with pytest.raises(DeadlineExceeded, match=r"0\.2 s at most|before the answer"):
        model.crew.check_alive(0.001)
    model.crew.restart()
    thread.join(10)


def test_wrong_numbers_are_no_sign_of_life(models):
    model = models()
    session = model.crew.sessions[0]
    original = session.run
    session.run = lambda images, outputs: {
        name: rows + 1e-3 for name, rows in original(images, outputs).items()
    }
    with pytest.raises(BundleDamaged, match=r"off by 0\.001"):
        model.crew.check_alive(10)


def test_a_session_that_fails_is_no_sign_of_life(models, caplog):
    model = models()

    def broken(images, outputs):
        raise RuntimeError("device lost")

    model.crew.sessions[0].run = broken
    with pytest.raises(RuntimeError, match="device lost"):
        model.crew.check_alive(10)


def test_a_restart_without_the_bundle_refuses_and_a_later_one_recovers(models, images):
    model = models()
    graph = model.bundle.path / "model.onnx"
    moved = graph.rename(graph.with_suffix(".away"))
    with pytest.raises(Exception, match=r"model\.onnx"):
        model.crew.restart()
    with pytest.raises(Unavailable, match="restarted"):
        model.infer(Query(images))
    moved.rename(graph)
    model.crew.restart()
    assert len(model.infer(Query(images)).rows["embedding"]) == 5


def test_a_crew_that_is_stopped_meanwhile_is_not_started_again(local):
    crew = Crew(local, BatchLimits(4, 16))
    worker = crew.worker
    assert crew.stop(10)
    crew.restart()
    assert crew.worker is worker
    assert crew.restarts == 0


def test_sessions_have_threads_and_memory_of_their_own(local, models, images):
    model = models(sessions=3)
    sessions = model.crew.sessions
    assert len({id(session) for session in sessions}) == 3
    assert {session.threads for session in sessions} == {1}
    assert not model.crew.is_prefetching
    may_end = threading.Barrier(4)
    for session in sessions:

        def run(images, outputs, original=session.run):
            may_end.wait(10)  # passes only if all three run at the same time
            return original(images, outputs)

        session.run = run
    threads = [asking(model, images[:4], []) for _ in range(3)]
    may_end.wait(10)
    for thread in threads:
        thread.join(10)


def test_a_prefetched_batch_waits_for_its_turn_and_keeps_its_pixels(
    monkeypatch, models, reference, rng
):
    """As on a device: two threads, two slabs, one session that never runs twice at a time."""
    monkeypatch.setattr("embedkit.serve.running.crew.ON_CUDA", {"CPUExecutionProvider"})
    model = models()
    assert model.crew.is_prefetching
    session = model.crew.sessions[0]
    original, running, sizes = session.run, threading.Semaphore(1), []

    def run(images, outputs):
        assert running.acquire(blocking=False)
        sizes.append(len(images))
        time.sleep(0.002)
        rows = original(images, outputs)
        running.release()
        return rows

    session.run = run
    wrong = []

    def ask(seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
        for _ in range(20):
            rows = model.infer(Query(pixels, frozenset({"features"}))).rows["features"]
            if not np.allclose(rows, reference(pixels), rtol=1e-4, atol=1e-5):
                wrong.append(seed)

    callers = [threading.Thread(target=ask, args=(seed,)) for seed in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert not wrong
    assert sizes.count(4) > len(sizes) / 2
    model.crew.check_alive(10)


def test_small_requests_are_copied_once_and_a_lone_one_never(local, images):
    seen = []
    session = local.session
    original = session.run

    def run(images, outputs):
        seen.append(images)
        return original(images, outputs)

    session.run = run
    station = Station(session, 4)

    def batch_of(*pieces):
        works = [Work(piece, frozenset({"embedding"})) for piece in pieces]
        return Batch(
            tuple(Slice(None, work, 0, len(work.images)) for work in works),
            sum(map(len, pieces)),
        )

    rows = station(batch_of(images[:1], images[1:3]))["embedding"]
    assert np.shares_memory(seen[0], station._slab)
    np.testing.assert_allclose(rows, local.embed(images[:3]), atol=1e-6)
    station(batch_of(images[:3]))
    assert np.shares_memory(seen[-1], images)
