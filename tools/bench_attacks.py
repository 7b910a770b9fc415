"""Rate of our APGD against pyautoattack's: same network, images, steps and threads, in turn.

    python tools/bench_attacks.py --data ../shared/data [--images 64] [--steps 20] [--rounds 5]

Ours climbs on the twin as an evaluation loads it, batch norms folded into convolutions;
pyautoattack on the network as it was published. Each round times one after the other, the first
changing from round to round, and gives the ratio of their rates per second of processor time,
which other processes hardly change, and of wall time; medians and ranges are printed, with the
images that each left standing. pyautoattack must be importable. Exit code 1 if the median ratio
of processor time is below ``--least``.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from embedkit.data.source import load_dataset
from embedkit.encoders.folding import fold_norms
from embedkit.evaluate.attack import Problem
from embedkit.evaluate.attacks.apgd_ce import APGDCrossEntropy
from embedkit.evaluate.measurement.victim.heads import LinearHead
from embedkit.evaluate.surrogate import TorchEmbedder
from embedkit.evaluate.threat import Threat
from embedkit.export.import_model import Architecture, import_torch
from embedkit.perturb.randomness import keys_of

PUBLISHED = Architecture("resnet20", (32, 32, 3), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Classifier(torch.nn.Module):
    """Logits of pixels in [0, 1], as pyautoattack takes a model."""

    def __init__(self, twin: TorchEmbedder, head: LinearHead) -> None:
        super().__init__()
        self.twin = twin
        self.weight, self.bias = torch.tensor(head.head.weight), torch.tensor(head.head.bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits, (n, c)."""
        return self.twin.embed_pixels(pixels) @ self.weight.T + self.bias


def problem_of(data: Path, images: int, radius: float) -> tuple[Problem, Classifier]:
    """The first images that the published network classifies correctly."""
    test = load_dataset(f"{data}/cifar10.zip:test").subset(range(2 * images))
    weights = data / "weights" / "resnet20_cifar10.safetensors"
    source = import_torch(weights, PUBLISHED, class_names=test.class_names)
    assert source.head is not None
    folded = deepcopy(source.encoder).eval()
    fold_norms(folded)
    twin = TorchEmbedder(folded, "sha256:published", output="features")
    pixels, labels = np.asarray(test.images), np.asarray(test.labels)
    logits = source.head.logits(twin.embed(pixels))
    right = np.flatnonzero(logits.argmax(axis=1) == labels)[:images]
    head = LinearHead(source.head, labels[right])
    keys = keys_of(tuple(map(str, right)), 0)
    problem = Problem(pixels[right], keys, Threat("linf", radius), head, None, twin)
    plain = TorchEmbedder(source.encoder, "sha256:published", output="features")
    return problem, Classifier(plain, head)


def ours(problem: Problem, steps: int) -> torch.Tensor:
    """Pixels that our APGD on the cross-entropy found."""
    found = APGDCrossEntropy(steps).run(problem).candidates
    return torch.tensor(problem.threat.project(found, problem.images)).permute(0, 3, 1, 2) / 255


def theirs(
    problem: Problem, model: Classifier, steps: int
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The APGD of pyautoattack on the cross-entropy, ready to be called."""
    from pyautoattack import AutoAttack  # type: ignore[import-not-found]

    attack = AutoAttack(
        model,
        norm="Linf",
        eps=problem.threat.radius_255 / 255,
        version="custom",
        attacks=["apgd-ce"],
        seed=0,
    ).apgd
    attack.n_iter, attack.n_restarts, attack.loss = steps, 1, "ce"

    def run(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = attack.perturb(pixels, labels)
        return found

    return run


def main() -> int:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--radius", type=float, default=1)
    parser.add_argument("--least", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    problem, model = problem_of(options.data, options.images, options.radius)
    pixels = torch.tensor(problem.images).permute(0, 3, 1, 2).float() / 255
    labels = torch.tensor(getattr(problem.head, "labels"))  # noqa: B009
    peer = theirs(problem, model, options.steps)
    runs: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: ours(problem, options.steps),
        "pyautoattack": lambda: peer(pixels, labels),
    }
    ratios, wall, standing = [], [], {}
    for number in range(options.rounds + 1):
        seconds, cpu_seconds = {}, {}
        for name in sorted(runs, reverse=bool(number % 2)):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            found = runs[name]()
            seconds[name] = time.perf_counter() - begin
            cpu_seconds[name] = time.process_time() - begin_cpu
            with torch.no_grad():
                standing[name] = int((model(found).argmax(dim=1) == labels).sum())
        # The first round warms up both.
        if number:
            ratios.append(cpu_seconds["pyautoattack"] / cpu_seconds["ours"])
            wall.append(seconds["pyautoattack"] / seconds["ours"])
    ratio = statistics.median(ratios)
    result = {
        "ratio": round(ratio, 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "wall_ratio": round(statistics.median(wall), 3),
        "wall_range": [round(min(wall), 3), round(max(wall), 3)],
        "rounds": options.rounds,
        "images": len(labels),
        "steps": options.steps,
        "radius_255": options.radius,
        "threads": options.threads,
        "standing": standing,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return int(ratio < options.least)


if __name__ == "__main__":
    raise SystemExit(main())
