"""Bring a real server to its limits and say whether it held; loopback only, bounded.

    python tools/stress_serve.py fuzz overload soak idle --out docs/results/stress_serve.json

``--scale 0.01`` makes everything that much smaller, to try the tool. Each scenario starts its
own server process and prints what it measured; the exit code is 1 if a limit was missed.
"""

import argparse
import json
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from stress_messages import METHODS, Messages

import embedkit
from embedkit.bench.models import write_network
from embedkit.bench.serving.load import Done, Reply, run_closed, run_open
from embedkit.bench.serving.senders import UnarySender, make_request
from embedkit.bench.serving.server import Target, own_server

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "models" / "digits" / "1"
# What a caller can make of a request; anything else is a fault of the server.
EXPECTED = {
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"),
}
Figures = dict[str, Any]


@contextmanager
def serving(bundle: Path, *arguments: str) -> Iterator[tuple[Target, psutil.Process]]:
    """A server of one bundle in a process of its own."""
    before = {child.pid for child in psutil.Process().children()}
    quiet = ("--access-log", "off", *arguments)
    with own_server(bundle, cores=(), threads=1, arguments=quiet) as target:
        (made,) = (c for c in psutil.Process().children() if c.pid not in before)
        yield target, made


def rss_mb(process: psutil.Process) -> float:
    """Resident memory in MB."""
    return float(process.memory_info().rss / 1e6)


def fuzz(scale: float) -> Figures:
    """Random and mutated messages and images: every answer is a status, memory stays flat."""
    count = max(100, int(10_000 * scale))
    messages = Messages(seed=0)
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    codes: Counter[str] = Counter()
    with serving(DIGITS) as (target, process), embedkit.connect(target.address) as client:
        client.create_collection("fuzz", dim=4)
        expected = client.embed(images)
        with grpc.insecure_channel(target.address) as channel:
            calls = {name: channel.unary_unary(name) for name in METHODS}
            settled = 0.0
            for number in range(count):
                name, data = messages.next()
                failure = calls[name].future(data, timeout=30).exception()
                codes["OK" if failure is None else failure.code().name] += 1
                if number == count // 5:
                    settled = rss_mb(process)
                if number % 1000 == 0:
                    np.testing.assert_array_equal(client.embed(images), expected)
        np.testing.assert_array_equal(client.embed(images), expected)
        end = rss_mb(process)
    unexpected = {code: n for code, n in codes.items() if code not in EXPECTED}
    holds = not unexpected and end < settled * 1.1 + 5
    return {
        "messages": count,
        "codes": dict(codes),
        "rss_mb_at_a_fifth": settled,
        "rss_mb_at_end": end,
        "limit": "no other codes; memory within 10 % + 5 MB of that after a fifth",
        "holds": holds,
    }


def overload(scale: float) -> Figures:
    """Five times the capacity: goodput stays, the rest is refused at once."""
    seconds, per_call = max(2.0, 60 * scale), 8
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle = write_network(folder, "heavy")
        queue = ("--queue-images", "256")
        target, process = stack.enter_context(serving(bundle, *queue))
        pixels = np.random.default_rng(2).integers(0, 256, (per_call, 32, 32, 3), np.uint8)
        sender = UnarySender(target.address, make_request(target.model, pixels))
        stack.callback(sender.close)
        calm = run_closed(sender, in_flight=16, seconds=max(2.0, 10 * scale), warm_s=1)
        capacity = calm.calls / calm.seconds
        before = rss_mb(process)
        refusals = _Refusals(sender)
        flood = run_open(refusals, rate_per_s=5 * capacity, seconds=seconds, warm_s=1, seed=3)
        after = rss_mb(process)
    goodput = flood.calls / flood.seconds / capacity
    p99_s = float(np.percentile(flood.latencies_s, 99))
    refused = float(np.median(refusals.seconds))
    # 256 images in line, 64 in the batch that runs and in the one behind it.
    bound_s = 3 * (256 + 128) / (capacity * per_call)
    known = set(flood.codes) <= {"OK", "RESOURCE_EXHAUSTED"}
    holds = goodput >= 0.9 and known and p99_s < bound_s and after < before * 1.2 + 20
    return {
        "seconds": seconds,
        "capacity_images_per_s": capacity * per_call,
        "goodput_of_capacity": goodput,
        "codes": flood.codes,
        "p99_s_of_accepted": p99_s,
        "p99_bound_s": bound_s,
        "median_s_of_refusals": refused,
        "rss_mb_before": before,
        "rss_mb_after": after,
        "limit": "goodput >= 0.9, only OK and RESOURCE_EXHAUSTED, p99 and memory bounded",
        "holds": holds,
    }


class _Refusals:
    """A sender that also times the calls that were refused."""

    def __init__(self, sender: UnarySender) -> None:
        self._sender = sender
        self.seconds: list[float] = []

    def send(self, done: Done) -> None:
        began = time.perf_counter()

        def ended(reply: Reply) -> None:
            if reply.code != "OK":
                self.seconds.append(time.perf_counter() - began)
            done(reply)

        self._sender.send(ended)

    def close(self) -> None:
        self._sender.close()


def soak(scale: float) -> Figures:
    """Half a million calls: memory at the end is that of the first tenth."""
    total = max(2000, int(500_000 * scale))
    image = np.random.default_rng(4).integers(0, 256, (1, 8, 8, 1), np.uint8)
    with serving(DIGITS) as (target, process):
        sender = UnarySender(target.address, make_request(target.model, image))
        failed: Counter[str] = Counter()
        began = time.monotonic()
        _send_many(sender, total // 10, failed)
        first = rss_mb(process)
        _send_many(sender, total - total // 10, failed)
        end, seconds = rss_mb(process), time.monotonic() - began
        sender.close()
    return {
        "calls": total,
        "failed": dict(failed),
        "seconds": seconds,
        "rss_mb_after_a_tenth": first,
        "rss_mb_at_end": end,
        "growth": end / first - 1,
        "limit": "no call failed; memory within 5 %",
        "holds": not failed and end / first < 1.05,
    }


def _send_many(sender: UnarySender, count: int, failed: Counter[str]) -> None:
    """Send calls, 64 at a time, and wait for all answers."""
    room = threading.Semaphore(64)

    def done(reply: Reply) -> None:
        if reply.code != "OK":
            failed[reply.code] += 1
        room.release()

    for _ in range(count):
        room.acquire()
        sender.send(done)
    for _ in range(64):
        room.acquire()


def idle(scale: float) -> Figures:
    """Idle connections, slow callers and half-closed streams cost others nothing."""
    count = max(50, int(1000 * scale))
    image = np.random.default_rng(5).integers(0, 256, (1, 8, 8, 1), np.uint8)
    request = make_request("digits", image)
    method = "/embedkit.v1.EmbeddingService/"
    with serving(DIGITS) as (target, process), ExitStack() as stack:
        client = stack.enter_context(embedkit.connect(target.address))
        expected = client.embed(image)
        before = rss_mb(process)
        own = [("grpc.use_local_subchannel_pool", 1)]
        for _ in range(count):
            channel = stack.enter_context(grpc.insecure_channel(target.address, own))
            grpc.channel_ready_future(channel).result(30)
        connected = rss_mb(process)
        for channel_number in range(20):
            channel = stack.enter_context(grpc.insecure_channel(target.address, own))
            stream = channel.stream_stream(method + "EmbedStream")
            # One message and then silence on one side: half of them close it, half never do.
            hold = threading.Event()
            stack.callback(hold.set)
            stack.callback(stream(_messages(request, hold, channel_number % 2 == 0)).cancel)
        host, _, port = target.address.rpartition(":")
        for _ in range(20):  # a handshake that never ends
            slow = stack.enter_context(socket.create_connection((host, int(port))))
            slow.send(b"PRI * HTTP")
        waits = []
        for _ in range(200):
            began = time.perf_counter()
            np.testing.assert_array_equal(client.embed(image), expected)
            waits.append(time.perf_counter() - began)
    p99_ms = float(np.percentile(waits, 99) * 1e3)
    return {
        "connections": count,
        "kb_per_connection": (connected - before) * 1e3 / count,
        "p50_ms_of_others": float(np.median(waits) * 1e3),
        "p99_ms_of_others": p99_ms,
        "limit": "the same answers meanwhile, p99 under 250 ms, under 200 kB per connection",
        "holds": p99_ms < 250 and (connected - before) * 1e3 / count < 200,
    }


def _messages(request: bytes, hold: threading.Event, closes: bool) -> Iterator[bytes]:
    yield request
    if not closes:
        hold.wait(120)


SCENARIOS = {"fuzz": fuzz, "overload": overload, "soak": soak, "idle": idle}


def main() -> int:
    """Run the scenarios that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="+", choices=SCENARIOS)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {}
    for name in options.scenarios:
        results[name] = SCENARIOS[name](options.scale)
        print(name, json.dumps(results[name], indent=1), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"scale": options.scale, **results}, indent=1, sort_keys=True)
        options.out.write_text(text + "\n")
    return 0 if all(result["holds"] for result in results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
