"""The local store where the disk is full or no file can be opened any more."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL_DISK = """
import resource, signal, sys
import numpy as np
from embedkit.errors import Unavailable
from embedkit.retrieve.store import Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection

# A write beyond the limit fails, as on a full disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = LocalStore(sys.argv[1])
store.create(Collection("c", 64))
rng = np.random.default_rng(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
base, stored = rng.standard_normal((200, 64)).astype(np.float32), 0
try:
    for step in range(1000):
        store.upsert("c", [f"{step}-{i}" for i in range(200)], base)
        stored += 1
except Unavailable as error:
    print(error)
assert 5 < stored < 1000, stored
assert store.describe("c").count == 200 * stored
assert store.search("c", Query(base[:1], k=1)).scores[0][0] == 1
assert all(store.get("c", [f"{stored - 1}-{i}" for i in range(200)]))
assert store.get("c", [f"{stored}-0"]) == (None,)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.upsert("c", ["after"], base[:1]).count == 200 * stored + 1
store.close()
store = LocalStore(sys.argv[1])
assert store.describe("c").count == 200 * stored + 1
store.close()
"""


def test_a_full_disk_refuses_writes_and_reads_go_on(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "cannot write" in result.stdout


FEW_FILES = """
import os, resource, sys
import numpy as np
from embedkit.errors import Unavailable
from embedkit.retrieve.store import Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection

store = LocalStore(sys.argv[1])
store.create(Collection("c", 4))
base = np.eye(4, dtype=np.float32)
store.upsert("c", list("abcd"), base)
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), most))
made = 0
try:
    while made < 60:
        store.create(Collection(f"more-{made}", 4))
        made += 1
except Unavailable as error:
    print(error)
assert 5 < made < 60, made
assert len(store.collections()) == made + 1
files = []
try:
    while True:
        files.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
store._open["c"]._truth._readers._idle.clear()  # as when another call has the open connection
try:
    store.get("c", ["a"])
except Unavailable as error:
    print(error)
assert store.search("c", Query(base[:1], k=1, with_payload=False)).ids == [["a"]]
for file in files:
    os.close(file)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, most))
assert store.get("c", ["a"])[0].id == "a"
store.drop("more-0")
store.create(Collection(f"more-{made}", 4))
store.close()
store = LocalStore(sys.argv[1])
assert len(store.collections()) == made + 1
store.close()
"""


@pytest.mark.parametrize("most", range(60, 65))
def test_without_free_descriptors_the_error_says_so(tmp_path: Path, most: int) -> None:
    """Whichever of the files that a collection needs is the one too many."""
    result = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(tmp_path), str(most)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert f"expected 5 more file descriptors, got all {most} in use" in line
        assert "raise the limit (ulimit -n" in line


FULL_DISK_BUILD = """
import resource, signal, sys
import numpy as np
from embedkit.errors import Unavailable
from embedkit.retrieve.index import rebuild, segment
from embedkit.retrieve.store import Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.types import Collection, SearchParams

rebuild.LEAST, segment._FEW = 10_000, 20
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = LocalStore(sys.argv[1])
store.create(Collection("c", 64, kind="ivf_flat"))
base = np.random.default_rng(0).standard_normal((1500, 64)).astype(np.float32)
ids = [str(i) for i in range(1500)]
store.upsert("c", ids, base)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
rebuild.LEAST = 500
store._open["c"]._rebuilder.consider()
assert store.wait_until_built("c", 60)
stats = store.inspect("c").index
assert stats.kind == "ivf_flat", stats
assert stats.error, "the snapshot has 400 kB"
print(stats.error)
assert store.search("c", Query(base[:1], k=1)).ids[0][0] == "0"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store._open["c"]._rebuilder._retry_at = 0.0
store.upsert("c", ["more"], base[:1])
assert store.wait_until_built("c", 60)
assert store.inspect("c").index.error == ""
store.close()
store = LocalStore(sys.argv[1])
assert store.inspect("c").index.builds == 0, "from the snapshot"
assert store.verify("c").problems == ()
store.close()
"""


def test_a_full_disk_refuses_a_snapshot_and_searches_go_on(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK_BUILD, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "File too large" in result.stdout
    assert len(list((tmp_path / "collections" / "c").glob("*index-*"))) == 1
