"""What an evaluation costs once every embedding is there: seconds and memory, task by task.

    python tools/bench_evaluate.py [--train 50000] [--test 10000] [--dim 512] [--out FILE]

The embeddings are synthetic: ten classes as normal clouds of falling variance, and novel images
in between. They are put into the cache before the clock starts. `beyond` is left out, because
it looks at changed images, which no cache has. The tasks are the real ones, with the options of
`embedkit eval`; the times are those of the report.
"""

import argparse
import json
import os
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.data.dataset import Dataset
from embedkit.detect.detector import detectors
from embedkit.evaluate.context import Context, Options
from embedkit.evaluate.run import evaluate
from embedkit.types import Embeddings, EncodedImages, Images

CLASSES = 10
SUITE = ("knn", "linear", "ood", "geometry")


@dataclass(frozen=True)
class Table:
    """An embedder that looks a vector up by the number in an image's four pixels."""

    rows: Embeddings
    digest: str = "table"
    dim: int = field(default=0)

    def embed(self, images: Images | EncodedImages) -> Embeddings:
        """Unit vectors of the numbered rows."""
        found = self.features(images)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)

    def features(self, images: Images | EncodedImages) -> Embeddings:
        """The numbered rows."""
        pixels = np.ascontiguousarray(np.asarray(images, np.uint8)).reshape(len(images), 4)
        return np.asarray(self.rows[pixels.view("<u4")[:, 0] % len(self.rows)], np.float32)


def numbered(name: str, start: int, labels: npt.NDArray[np.int64] | None, n: int) -> Dataset:
    """Images of 2 by 2 pixels that hold the numbers from ``start`` on."""
    numbers = np.arange(start, start + n, dtype="<u4")
    images = numbers.view(np.uint8).reshape(n, 2, 2, 1)
    names = tuple(map(str, range(CLASSES))) if labels is not None else ()
    return Dataset(name, images, labels, names)


def vectors(
    n: int, dim: int, *, novel: bool, rng: np.random.Generator
) -> tuple[Embeddings, npt.NDArray[np.int64]]:
    """Features around ten means; of novel images around the middles of two of them."""
    means = np.random.default_rng(0).normal(size=(CLASSES, dim))
    labels = rng.integers(0, CLASSES, n)
    centres = means[labels]
    if novel:
        centres = (centres + means[(labels + 1) % CLASSES]) / 2
    scale = np.linspace(3, 0.3, dim)
    noise = rng.standard_normal((n, dim), dtype=np.float32) * scale.astype(np.float32)
    return (centres + noise).astype(np.float32), labels


def context(args: argparse.Namespace) -> Context:
    """All data sets, with their embeddings and features in the cache."""
    rng = np.random.default_rng(1)
    sizes = {"train": args.train, "test": args.test, "novel": args.novel}
    parts = {n: vectors(c, args.dim, novel=n == "novel", rng=rng) for n, c in sizes.items()}
    sets, start = {}, 0
    for name, (rows, labels) in parts.items():
        sets[name] = numbered(name, start, None if name == "novel" else labels, len(rows))
        start += len(rows)
    table = Table(np.concatenate([rows for rows, _ in parts.values()]), dim=args.dim)
    names = tuple(name for name in detectors.names() if name != "beyond")
    options = Options(detectors=names, probe_images=args.probe_images)
    made = Context(
        table, sets["train"], sets["test"], {"novel": sets["novel"]}, options=options
    )
    for dataset in sets.values():
        made.embeddings("served", dataset)
        made.features("served", dataset)
    return made


def main() -> int:
    """Run the suite and print seconds and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in {"train": 50_000, "test": 10_000, "novel": 10_000, "dim": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--probe-images", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    made = context(args)
    begin, cpu = time.perf_counter(), time.process_time()
    report = evaluate(made, SUITE)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    found = {
        "sizes": {k: v for k, v in vars(args).items() if k != "out"},
        "seconds": {**report.timing, "total": round(seconds, 3)},
        # On a busy machine the processor seconds, over its cores, say what an idle one needs.
        "cpu_seconds": round(cpu, 3),
        "cores": os.cpu_count(),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "status": {r.task: r.status for r in report.results},
        "warnings": {r.task: list(r.warnings) for r in report.results},
        "auroc": {
            name: round(m.value, 4)
            for r in report.results
            for name, m in r.metrics.items()
            if r.task == "ood" and name.endswith(".auroc")
        },
    }
    text = json.dumps(found, indent=1)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
