"""Work that nobody waits for is given up."""

import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import Cancelled, DeadlineExceeded
from embedkit.retrieve.patience import FOREVER, Patience
from embedkit.retrieve.store import Query, Scan
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


def test_a_statement_is_stopped_when_the_caller_goes() -> None:
    connection, patience = sqlite3.connect(":memory:"), Patience()
    threading.Timer(0.05, patience.cancel).start()
    with pytest.raises(Cancelled), patience.over(connection):
        connection.execute(ENDLESS).fetchall()
    # The connection goes on, for somebody else.
    assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(DeadlineExceeded), Patience(0.05).over(connection):
        connection.execute(ENDLESS).fetchall()
    with pytest.raises(sqlite3.OperationalError, match="no such"), FOREVER.over(connection):
        connection.execute("SELECT * FROM elsewhere")
    connection.close()


def test_what_is_left() -> None:
    assert FOREVER.left_s is None
    assert not FOREVER.is_over
    assert 0 < (Patience(9).left_s or 0) <= 9
    gone = Patience(-1)
    assert (gone.left_s, gone.is_over) == (0, True)


def test_every_question_to_a_store_can_be_given_up(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create(Collection("c", dim=2))
    base = np.ones((1, 2), np.float32)
    store.upsert("c", ["a"], base, [b'{"n":1}'])
    gone = Patience()
    gone.cancel()
    late = Patience(0)
    time.sleep(0.001)
    for patience, error in ((gone, Cancelled), (late, DeadlineExceeded)):
        for act in (
            lambda p=patience: store.search("c", Query(base, 1, patience=p)),
            lambda p=patience: store.search("c", Query(base, 1, "n = 1", patience=p)),
            lambda p=patience: store.scan("c", Scan(patience=p)),
            lambda p=patience: store.sample("c", Scan(patience=p), seed=0),
            lambda p=patience: store.upsert("c", ["b"], base, patience=p),
            lambda p=patience: store.delete("c", ["a"], patience=p),
            lambda p=patience: store.delete("c", filter="n = 1", patience=p),
            lambda p=patience: store.at("c", [1], patience=p),
            lambda p=patience: store.verify("c", patience=p),
            lambda p=patience: store.compact("c", patience=p),
        ):
            with pytest.raises(error):
                act()
    assert store.describe("c").sequence == 1
    store.close()


class Short(Patience):
    """Over when it has been asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def check(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.cancel()
        super().check()


@pytest.mark.parametrize(
    ("payload", "leaf"),
    [
        (rb'{"t":"ab","u":"\\"}', "t = 'a'"),
        (b'{"t":"ab"}', "t like 'a'"),
        (b'{"t":0.1}', "t = 0.1"),
    ],
)
def test_a_filter_is_given_up_between_the_comparisons_that_python_makes(
    tmp_path: Path, payload: bytes, leaf: str
) -> None:
    """Far fewer rows than SQLite takes before it asks by itself."""
    store = LocalStore(tmp_path)
    store.create(Collection("c", dim=2))
    base = np.ones((4, 2), np.float32)
    store.upsert("c", list("abcd"), base, [payload] * 4)
    written = " and ".join([f"not ({leaf} and exists x)"] * 10)
    with pytest.raises(Cancelled):
        store.search("c", Query(base[:1], 1, written, patience=Short(12)))
    with pytest.raises(Cancelled):
        store.scan("c", Scan(filter=written, patience=Short(12)))
    with pytest.raises(Cancelled):
        store.delete("c", filter=written, patience=Short(12))
    assert store.search("c", Query(base[:1], 4, written)).hits[0].ids == list("abcd")
    store.close()


@pytest.mark.parametrize(("timeout_s", "error"), [(0.05, DeadlineExceeded), (None, Cancelled)])
def test_a_write_does_not_stand_in_line_for_longer_than_its_caller(
    tmp_path: Path, timeout_s: float | None, error: type[Exception]
) -> None:
    store = LocalStore(tmp_path)
    store.create(Collection("c", dim=2))
    base = np.ones((1, 2), np.float32)
    line = store._open["c"]._writer  # as who compacts or deletes by filter holds it
    line.acquire()
    release = threading.Timer(30, line.release)
    release.start()
    patience = Patience(timeout_s)
    if timeout_s is None:
        threading.Timer(0.05, patience.cancel).start()
    with pytest.raises(error):
        store.upsert("c", ["a"], base, patience=patience)
    release.cancel()
    assert line.locked()
    line.release()
    assert store.upsert("c", ["b"], base).sequence == 1
    assert store.get("c", ["a"]) == (None,)
    store.close()


class Asked(Patience):
    """Over when SQLite has asked so many times, beside those who check."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    @property
    def is_over(self) -> bool:
        self.left -= 1
        if self.left <= 0:
            self.cancel()
        return super().is_over


def test_verifying_and_compacting_are_given_up_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    store.create(Collection("c", dim=2))
    ids = [str(i) for i in range(2000)]
    base = np.ones((2000, 2), np.float32)
    store.upsert("c", ids, base, [b'{"n":"%s"}' % (b"x" * 500)] * 2000)
    store.delete("c", ids[:1000])
    for act in (store.compact, store.verify):
        enough = Asked(1 << 30)
        act("c", patience=enough)
        with pytest.raises(Cancelled):
            act("c", patience=Asked(((1 << 30) - enough.left) // 2))
    monkeypatch.setattr("embedkit.retrieve.truth.view._ROWS_AT_ONCE", 10)
    with pytest.raises(Cancelled):
        store.verify("c", patience=Short(50))
    assert store.verify("c").problems == ()
    assert store.upsert("c", ["new"], base[:1]).count == 1001
    assert store.compact("c") >= 0
    assert store.verify("c").vectors == 1001
    store.close()
