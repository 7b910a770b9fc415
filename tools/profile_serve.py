"""Where the CPU time of a served call goes, by thread: ``python tools/profile_serve.py``.

The server has core 0, the client core 1. Prints microseconds of CPU per call and changes of
thread per call for each thread of the server, named by what the system calls it; the largest of
those called after Python is the one that runs the model. Then the same calls without gRPC, from
a request's bytes to its answer's bytes in one process: what is left between the two is gRPC.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from google.protobuf.message import Message

from embedkit.bench.models import write_network
from embedkit.bench.serving.load import Reply
from embedkit.bench.serving.senders import UnarySender, make_request
from embedkit.bench.serving.server import own_server
from embedkit.runtime.local import load
from embedkit.serve.engine import Engine, EngineConfig
from embedkit.serve.services.embedding import EmbeddingServicer
from embedkit.types import Images
from embedkit.wire.proto import embedding_pb2


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["light", "heavy"], default="light")
    parser.add_argument("--images", type=int, default=1, help="per call")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (options.images, 32, 32, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_network(Path(folder), options.model)
        before = {child.pid for child in psutil.Process().children()}
        with own_server(bundle, cores=(0,), threads=1) as target:
            (server,) = (c.pid for c in psutil.Process().children() if c.pid not in before)
            os.sched_setaffinity(0, {1})
            sender = UnarySender(target.address, make_request(target.model, images))
            calls = _Loop(sender, options.in_flight)
            time.sleep(1.0)
            first, begin = calls.done, threads_of(server)
            time.sleep(options.seconds)
            count, end = calls.done - first, threads_of(server)
            calls.stop()
            sender.close()
        os.sched_setaffinity(0, {0})
        inner = without_grpc(bundle, images, options.in_flight, options.seconds)
        bare = raw(bundle, images, options.seconds)
    print(json.dumps({"calls_per_s": count / options.seconds}))
    rows = [(end[i][1] - begin.get(i, end[i])[1], *end[i], *begin.get(i, end[i])) for i in end]
    for cpu, name, _, switches, _, _, switched in sorted(rows, reverse=True):
        if cpu / count > 1e-6:
            changes = (switches - switched) / count
            print(f"{name:16} {cpu / count * 1e6:7.1f} us/call  {changes:5.2f} changes/call")
    print(f"{'all':16} {sum(row[0] for row in rows) / count * 1e6:7.1f} us/call")
    print(f"{'without gRPC':16} {inner * 1e6:7.1f} us/call")
    print(f"{'bare session':16} {bare * 1e6:7.1f} us/call")


def without_grpc(bundle: Path, images: Images, in_flight: int, seconds: float) -> float:
    """CPU seconds per call of this process, from the request's bytes to the answer's."""
    engine = Engine(EngineConfig(threads=1))
    model = engine.load(bundle)
    pool = ThreadPoolExecutor(1)
    servicer = EmbeddingServicer(engine, pool=pool, max_images=4096)
    data = make_request(model.name, images)
    ends = threading.Semaphore(0)
    done = 0
    until = time.monotonic() + seconds

    def again() -> None:
        nonlocal done
        done += 1
        if time.monotonic() < until:
            servicer.embed(embedding_pb2.EmbedRequest.FromString(data), _Call(again))
        else:
            ends.release()

    began = time.process_time()
    for _ in range(in_flight):
        again()
    for _ in range(in_flight):
        ends.acquire(timeout=30)
    spent = time.process_time() - began
    engine.close()
    pool.shutdown()
    return spent / done


class _Call:
    """A call that serialises its answer and sends it nowhere."""

    trace = None

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def time_left(self) -> None:
        """No deadline."""

    def watch(self, cancel: Callable[[], None]) -> bool:
        """Nobody goes away."""
        return True

    def reply(self, message: Message) -> None:
        """Serialise, then go on."""
        message.SerializeToString()
        self._then()

    def fail(self, error: BaseException) -> None:
        """A failure ends the tool."""
        raise error


def raw(bundle: Path, images: Images, seconds: float, batch: int = 32) -> float:
    """CPU seconds of the bare session for the images of one call, in batches of ``batch``."""
    model = load(bundle, threads=1)
    whole = np.resize(images, (batch, *images.shape[1:]))
    runs, until, began = 0, time.monotonic() + seconds, time.process_time()
    while time.monotonic() < until:
        model.session.run(whole, ("embedding",))
        runs += 1
    return (time.process_time() - began) / (runs * batch) * len(images)


class _Loop:
    """Keeps a number of calls under way until it is stopped."""

    def __init__(self, sender: UnarySender, in_flight: int) -> None:
        self.done = 0
        self._sender = sender
        self._stopping = False
        self._ended = threading.Semaphore(0)
        self._count = in_flight
        for _ in range(in_flight):
            sender.send(self._next)

    def stop(self) -> None:
        """End the loop and wait for the last answers."""
        self._stopping = True
        for _ in range(self._count):
            self._ended.acquire(timeout=30)

    def _next(self, reply: Reply) -> None:
        self.done += reply.code == "OK"
        if self._stopping:
            self._ended.release()
        else:
            self._sender.send(self._next)


def threads_of(process: int) -> dict[int, tuple[str, float, int]]:
    """Name, CPU seconds and changes of thread so far of each thread of a process."""
    found = {}
    for thread in Path(f"/proc/{process}/task").iterdir():
        cpu_ns = int((thread / "schedstat").read_text().split()[0])
        status = (thread / "status").read_text().splitlines()
        switches = sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
        name = (thread / "comm").read_text().strip()
        found[int(thread.name)] = (name, cpu_ns / 1e9, switches)
    return found


if __name__ == "__main__":
    main()
