"""A server killed under load keeps every acknowledged vector, and no torn one."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from embedkit.wire.codec import encode_tensor
from embedkit.wire.proto import index_pb2
from embedkit.wire.proto.index_pb2_grpc import IndexServiceStub

SERVE = """
import sys
import embedkit.serve.server  # while the server before this one is still running
sys.stdin.readline()
from embedkit.cli import main
main(["serve", "--models", sys.argv[1], "--data-dir", sys.argv[2], "--bind", "127.0.0.1:0",
      "--metrics-bind", "off"])
"""
WRITERS, ROWS, CRASH_DIM = 4, 16, 32
Version = tuple[int, bool]
"""Number of a writer's request, and whether it removed the ids instead of storing them."""


def spawn(models: Path, data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, str(models), str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ready(process: subprocess.Popen[str]) -> str:
    """Let a spawned server start; returns its address."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return str(json.loads(process.stdout.readline())["address"])


def batch_of(writer: int, number: int) -> tuple[list[str], np.ndarray, list[bytes]]:
    """Ids, vectors and payloads of a request; each payload has its vector's digest."""
    rng = np.random.default_rng([writer, number])
    base = rng.standard_normal((ROWS, CRASH_DIM)).astype(np.float32)
    payloads = [
        json.dumps({"number": number, "digest": hashlib.sha256(v.tobytes()).hexdigest()})
        for v in base
    ]
    return [f"{writer}-{i}" for i in range(ROWS)], base, [p.encode() for p in payloads]


def write_until_killed(
    index: IndexServiceStub, writer: int, start: int, sent: list[Version], acked: list[Version]
) -> None:
    number = start
    while True:
        number += 1
        version = (number, number % 7 == 0)
        sent.append(version)
        ids, base, payloads = batch_of(writer, number)
        try:
            if version[1]:
                index.Delete(index_pb2.DeleteRequest(collection="c", ids=ids))
            else:
                index.Upsert(
                    index_pb2.UpsertRequest(
                        collection="c",
                        ids=ids,
                        vectors=encode_tensor(base),
                        payloads=payloads,
                    )
                )
        except grpc.RpcError:
            return
        acked.append(version)


def found_version(index: IndexServiceStub, writer: int) -> int | None:
    """The one request whose rows a writer's ids hold, checked bit for bit; None if removed."""
    ids, _, _ = batch_of(writer, 0)
    records = index.Get(
        index_pb2.GetRequest(collection="c", ids=ids, with_vectors=True)
    ).records
    if not any(r.found for r in records):
        return None
    assert all(r.found for r in records), "a request was torn: some of its ids are missing"
    numbers = {json.loads(r.payload)["number"] for r in records}
    assert len(numbers) == 1, f"a request was torn: its ids hold versions {numbers}"
    number = int(numbers.pop())
    _, base, payloads = batch_of(writer, number)
    for record, vector, payload in zip(records, base, payloads, strict=True):
        assert record.vector.data == vector.tobytes()
        assert record.payload == payload
    hits = index.Search(
        index_pb2.SearchRequest(collection="c", k=1, vectors=encode_tensor(base))
    ).results
    assert [h.ids[0] for h in hits] == ids, "the index differs from the truth"
    return number


def check_survivors(index: IndexServiceStub, last: list[list[Version]]) -> list[int]:
    """Each writer's ids must be as its last acknowledged request left them, or the next one.

    What was found becomes what is certain.
    """
    numbers = []
    present = 0
    for writer, allowed in enumerate(last):
        found = found_version(index, writer)
        outcomes = [None if removes else number for number, removes in allowed]
        assert found in outcomes, f"writer {writer}: found {found}, allowed {allowed}"
        present += 0 if found is None else ROWS
        numbers.append(max(number for number, _ in allowed))
        last[writer] = [v for v, o in zip(allowed, outcomes, strict=True) if o == found]
    assert index.Describe(index_pb2.DescribeRequest(name="c")).count == present
    return numbers


def survive_kills(
    models: Path, data_dir: Path, kills: int, channel: Callable[[str], grpc.Channel]
) -> int:
    """Kill a server ``kills`` times under load; returns the number of acknowledged requests."""
    moments = random.Random(7)
    acknowledged = 0
    last: list[list[Version]] = [[(0, True)] for _ in range(WRITERS)]
    process, following = spawn(models, data_dir), spawn(models, data_dir)
    try:
        index = IndexServiceStub(channel(ready(process)))
        index.CreateCollection(index_pb2.CreateCollectionRequest(name="c", dim=CRASH_DIM))
        numbers = [0] * WRITERS
        for _ in range(kills):
            sent: list[list[Version]] = [[] for _ in range(WRITERS)]
            acked: list[list[Version]] = [[] for _ in range(WRITERS)]
            threads = [
                threading.Thread(
                    target=write_until_killed, args=(index, w, numbers[w], sent[w], acked[w])
                )
                for w in range(WRITERS)
            ]
            for thread in threads:
                thread.start()
            time.sleep(moments.uniform(0.02, 0.5))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            for thread in threads:
                thread.join()
            for w in range(WRITERS):
                acknowledged += len(acked[w])
                certain = [acked[w][-1]] if acked[w] else last[w]
                last[w] = [*certain, *sent[w][len(acked[w]) :]]
            process, following = following, spawn(models, data_dir)
            index = IndexServiceStub(channel(ready(process)))
            numbers = check_survivors(index, last)
    finally:
        for one in (process, following):
            one.kill()
            one.communicate()
    return acknowledged


def test_ten_kills_lose_nothing_acknowledged_and_tear_nothing(
    tiny_models: Path, tmp_path: Path, channel: Callable[[str], grpc.Channel]
) -> None:
    assert survive_kills(tiny_models, tmp_path / "var", 10, channel) > 100


@pytest.mark.slow
def test_fifty_kills_lose_nothing_acknowledged_and_tear_nothing(
    tiny_models: Path, tmp_path: Path, channel: Callable[[str], grpc.Channel]
) -> None:
    assert survive_kills(tiny_models, tmp_path / "var", 50, channel) > 500
