"""Do black-box attacks keep a server busy? Their images/s beside multi-image calls.

    python tools/bench_attacks_served.py [--bundle DIR] [--images 256] [--rounds 5]
        [--attacks square,simba,nes]

A server process with one core and this process on another. Each round sends multi-image calls
in a closed loop, as ``embedkit bench serve`` does (64 images, 4 calls in flight), and then runs
each attack on the same server; the ratio of an attack's queries per second to the images per
second of its own round is printed, with median and range. The decision is the vote of 20
neighbours among ``--bank`` images and the radius one grey level, so that images stay under
attack. Exit code 1 if a median is below ``--least``.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.bench.cores import pinned
from embedkit.bench.models import write_network
from embedkit.bench.serving.load import run_closed
from embedkit.bench.serving.measure import Case, dial
from embedkit.bench.serving.server import Target as Place
from embedkit.bench.serving.server import own_server
from embedkit.bundle import Bundle
from embedkit.client.sync import connect
from embedkit.evaluate.attack import Attack, Target, attacks, run_attack
from embedkit.evaluate.measurement.victim.vote import KnnHead
from embedkit.evaluate.threat import Threat, ThreatNorm

CALLS = Case("multi-image", images=64, in_flight=4)


def target_of(place: Place, shape: tuple[int, ...], images: int, bank: int) -> Iterator[Target]:
    """Random images, attacked on the decision that the served model makes of them."""
    rng = np.random.default_rng(0)
    with connect(place.address) as client:
        victim = client.model(place.model)
        known = rng.integers(0, 256, (bank, *shape), dtype=np.uint8)
        labels = rng.integers(0, 10, bank)
        attacked = rng.integers(0, 256, (images, *shape), dtype=np.uint8)
        head = KnnHead(victim.embed(known), labels, np.zeros(images, np.int64))
        head = replace(head, labels=head.decide(victim.embed(attacked)))
        yield Target(victim, head, attacked, tuple(map(str, range(images))))


def attack_of(name: str, queries: int) -> tuple[Attack, Threat]:
    """An attack by queries, with as many per image, and a threat that it knows."""
    kind: Callable[..., Any] = attacks.get(name)
    method: Attack = kind(queries=queries)
    norm: ThreatNorm = "linf" if "linf" in method.norms else "l2"
    return method, Threat(norm, 1, queries)


def images_per_s(method: Attack, target: Target, threat: Threat) -> float:
    """Queries per second of one attack, its own work and the final check included."""
    began = time.perf_counter()
    outcome = run_attack(method, target, threat)
    images = outcome.usage.images + len(target.images)
    return images / (time.perf_counter() - began)


@contextmanager
def served(options: argparse.Namespace, folder: str) -> Iterator[tuple[Place, tuple[int, ...]]]:
    """The server, and the shape of its images."""
    bundle = options.bundle or write_network(Path(folder), options.network)
    spec = Bundle(bundle, verify=False).manifest.input
    with own_server(bundle, cores=(options.server_core,), threads=1) as place:
        yield place, (spec.height, spec.width, spec.channels)


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Ratios of each attack, one per round."""
    ratios: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        served(options, folder) as (place, shape),
        pinned((options.client_core,)),
        contextmanager(target_of)(place, shape, options.images, options.bank) as target,
    ):
        send = dial(place, (shape[0], shape[1], shape[2]))
        for number in range(options.rounds + 1):
            with closing(send(CALLS)) as sender:
                loop = run_closed(
                    sender,
                    in_flight=CALLS.in_flight,
                    seconds=options.seconds,
                    warm_s=0.5,
                    server_clock=place.clock,
                )
            rate = loop.calls * CALLS.images / loop.seconds
            queries = max(int(rate * options.seconds / options.images), 20)
            for name in options.attacks.split(","):
                method, threat = attack_of(name, queries)
                ratio = images_per_s(method, target, threat) / rate
                # The first round warms up.
                if number:
                    ratios.setdefault(name, []).append(ratio)
                sys.stderr.write(f"round {number}: {name} {ratio:.3f} of {rate:.0f}/s\n")
    return ratios


def main() -> int:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--network", choices=("light", "heavy"), default="heavy")
    parser.add_argument("--attacks", default="square,simba,nes")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--bank", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--least", type=float, default=0.85)
    options = parser.parse_args()
    ratios = measure(options)
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    result = {
        "model": str(options.bundle or options.network),
        "images": options.images,
        "bank": options.bank,
        "rounds": options.rounds,
        "ratio": {name: round(value, 3) for name, value in medians.items()},
        "range": {
            name: [round(min(values), 3), round(max(values), 3)]
            for name, values in ratios.items()
        },
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return int(min(medians.values()) < options.least)


if __name__ == "__main__":
    raise SystemExit(main())
