"""A process that is killed while it writes, builds and saves: nothing acknowledged is lost."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embedkit.retrieve.store import Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection, SearchParams

DIM = 16
KINDS = ("ivf_flat", "sq8", "hnsw", "flat")
# The moments that a kill is aimed at; the writer stays in each for some milliseconds.
MOMENTS = (
    *("commit", "build", "rows", "snapshot", "move", "rename", "record", "swap", "clear"),
    "any",
)

# Prints a line before each write, and one after its acknowledgement. A vector is made from its
# number, so that a torn one shows.
WRITER = """
import json, sys, threading, time
import numpy as np
from embedkit.retrieve import collection
from embedkit.retrieve.index import build, rebuild, segment
from embedkit.retrieve.index.snapshots import snapshot
from embedkit.retrieve.index.engines import rows
from embedkit.retrieve.stores.local import LocalStore
from embedkit.retrieve.truth.transaction import Transaction
from embedkit.retrieve.truth.truth import Truth

folder, seed, moment = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rebuild.LEAST, rebuild._REST_S, segment._FEW = 150, 0.0, 20
said = threading.Lock()

def say(*line):
    with said:
        print(json.dumps(line), flush=True)

def lingering(name, owner, attribute):
    original = getattr(owner, attribute)
    def act(*args, **options):
        if name == moment:
            say("in", name)
            time.sleep(0.004)
        result = original(*args, **options)
        if name == moment:
            time.sleep(0.004)
        return result
    setattr(owner, attribute, act)

lingering("commit", Transaction, "stand_at")
lingering("build", rebuild, "build_segment")
lingering("rows", rows.RowWriter, "add")
lingering("move", rows.Rows, "move")
lingering("snapshot", snapshot, "_write")
lingering("rename", snapshot, "_synchronise")
lingering("record", Truth, "keep_snapshot")
lingering("swap", collection.OpenCollection, "publish")
lingering("clear", collection, "clear")

store = LocalStore(folder)
say("open")
rng = np.random.default_rng(seed)

def write(kind):
    mine = np.random.default_rng([seed, len(kind)])
    step = 0
    while True:
        number = seed * 1_000_000 + step
        ids = [str(i) for i in mine.choice(500, size=int(mine.integers(1, 40)), replace=False)]
        is_removal = mine.random() < 0.3
        say("try", kind, number, ids if not is_removal else [], ids if is_removal else [])
        if is_removal:
            store.delete(kind, ids)
        else:
            vectors = np.stack([np.random.default_rng([number, int(i)]).standard_normal(16)
                                for i in ids]).astype(np.float32)
            store.upsert(kind, ids, vectors, [b'{"n":%d}' % number] * len(ids))
        say("done", kind, number)
        step += 1

for kind in ("ivf_flat", "sq8", "hnsw", "flat"):
    threading.Thread(target=write, args=(kind,), daemon=True).start()
time.sleep(60)
"""

Known = dict[str, dict[str, int]]


class Ledger:
    """What was acknowledged, and what was under way when the process died, by kind and id.

    A value is the number of the write that an id holds; an id that is absent has been removed.
    """

    def __init__(self) -> None:
        self.sure: Known = {kind: {} for kind in KINDS}
        self.open: dict[str, tuple[int, list[str], list[str]] | None]

    def read(self, lines: list[str]) -> None:
        self.open = dict.fromkeys(KINDS)
        for text in lines:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # the last one, cut off
            if line[0] == "try":
                self.open[line[1]] = (line[2], line[3], line[4])
            elif line[0] == "done":
                self._apply(line[1])

    def _apply(self, kind: str) -> None:
        write = self.open[kind]
        assert write is not None
        number, added, removed = write
        self.sure[kind].update(dict.fromkeys(added, number))
        for i in removed:
            self.sure[kind].pop(i, None)
        self.open[kind] = None

    def check(self, kind: str, found: dict[str, int]) -> None:
        """The store has what was acknowledged, with the open write whole or not at all."""
        if found != self.sure[kind]:
            assert self.open[kind] is not None, f"{kind}: an acknowledged write is lost"
            self._apply(kind)
        assert found == self.sure[kind]


def held(store: LocalStore, kind: str) -> dict[str, int]:
    """Every id with the number in its payload; its vector must be that of the number."""
    ids = [str(i) for i in range(500)]
    found: dict[str, int] = {}
    for i, row in zip(ids, store.get(kind, ids), strict=True):
        if row is not None:
            assert row.payload is not None
            number = json.loads(row.payload)["n"]
            made = np.random.default_rng([number, int(i)]).standard_normal(DIM)
            assert row.vector is not None
            assert np.array_equal(row.vector, made.astype(np.float32)), "a torn vector"
            found[i] = number
    return found


def killed(folder: Path, seed: int, moment: str, delay_s: float) -> list[str]:
    """Run the writer, kill it in the moment after some time; returns what it said."""
    command = [sys.executable, "-c", WRITER, str(folder), str(seed), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        while '["open"]\n' not in lines:  # a build may begin before
            lines.append(process.stdout.readline())
            assert lines[-1], "the writer ended by itself"
        end = time.monotonic() + delay_s
        for line in process.stdout:
            lines.append(line)
            is_there = moment == "any" or line.startswith('["in"')
            if time.monotonic() > end and is_there:
                break
            if time.monotonic() > end + 60:  # a busy machine builds late
                break
        time.sleep(random.Random(seed).uniform(0, 0.008))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
    return lines


def rounds(folder: Path, count: int, seed: int) -> None:
    store = LocalStore(folder)
    for kind in KINDS:
        store.create(Collection(kind, DIM, "l2", kind))
    store.close()
    ledger, moments, reached = Ledger(), random.Random(seed), dict.fromkeys(MOMENTS, 0)
    for step in range(count):
        moment = MOMENTS[step % len(MOMENTS)]
        lines = killed(folder, 1 + step, moment, moments.uniform(0.05, 0.6))
        reached[moment] += f'["in", "{moment}"]\n' in lines or moment == "any"
        ledger.read(lines)
        store = LocalStore(folder)
        for kind in KINDS:
            found = held(store, kind)
            ledger.check(kind, found)
            assert store.verify(kind).problems == ()
            if found:
                i, number = next(iter(found.items()))
                query = np.random.default_rng([number, int(i)]).standard_normal((1, DIM))
                wanted = Query(query.astype(np.float32), 1, params=SearchParams(exact=True))
                assert store.search(kind, wanted).ids[0][0] == i
        store.close()
    assert all(reached[MOMENTS[step % len(MOMENTS)]] for step in range(count)), reached


def test_kills_at_chosen_moments(tmp_path: Path) -> None:
    rounds(tmp_path, 5, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_kills(tmp_path: Path) -> None:
    rounds(tmp_path, 200, seed=2)
