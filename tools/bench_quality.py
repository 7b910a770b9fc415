"""What lightly's own loop learns, scored as the leaderboard scores ours.

    python -m tools.bench_quality --data FOLDER [--objectives dcl] [--seeds 0,1,2] [--out FILE]

Its loss, transform, head and DataLoader around the encoder of ``docs/leaderboard.md``, on the
same 10,000 images for the same 8 epochs of batches of 256, with AdamW at 1e-3 and 1e-4 decay;
its features of all test images are scored by the weighted kNN (k = 20) and the logistic
regression of ``embedkit eval``. Beside them stand our records of the same seeds, which were
served. lightly runs in an environment of its own, which is made when there is none.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from embedkit.measures.knn import unit, weighted_knn
from embedkit.runtime.probe import fit_probe
from embedkit.types import Embeddings, Labels
from tools.board.record import RESULTS, Record
from tools.peer_lightly import FOLDER, Ask, environment, lightly, version_in

_IMAGES = 10_000
_EPOCHS = 8
_NEIGHBOURS = 20
_SCORES = ("knn.top1", "linear.top1")
_OBJECTIVES = ("simclr", "dcl", "dclw")


def main() -> None:
    """Print the scores and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="has fashion_mnist.npz")
    parser.add_argument("--objectives", default="dcl", help=", ".join(_OBJECTIVES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--venv", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    wanted, source = options.objectives.split(","), options.data / "fashion_mnist.npz"
    if unknown := [name for name in wanted if name not in _OBJECTIVES]:
        parser.error(f"expected --objectives of {', '.join(_OBJECTIVES)}, got {unknown[0]!r}")
    if not source.is_file():
        parser.error(f"expected --data with fashion_mnist.npz, got {options.data}")
    with np.load(source, allow_pickle=False) as file:
        images = np.concatenate([file["x_train"][:_IMAGES], file["x_test"]])[..., None]
        labels = np.concatenate([file["y_train"][:_IMAGES], file["y_test"]]).astype(np.int64)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    python = environment(options.venv)
    figures: dict[str, Any] = {"lightly": version_in(python), "lr": options.lr, "scores": {}}
    with tempfile.TemporaryDirectory(prefix="bench-quality-") as folder:
        pixels = Path(folder) / "pixels.npy"
        np.save(pixels, images, allow_pickle=False)
        with lightly(python, pixels) as ask:
            for objective in wanted:
                runs = [_scored(ask, objective, s, options, pixels, labels) for s in seeds]
                figures["scores"][objective] = _beside(runs, _ours(objective, seeds))
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _scored(
    ask: Ask,
    objective: str,
    seed: int,
    options: argparse.Namespace,
    pixels: Path,
    labels: Labels,
) -> dict[str, float]:
    """Train with one seed; the scores of the features."""
    features = pixels.with_name("features.npy")
    task = {"objective": objective, "seed": seed, "lr": options.lr, "epochs": _EPOCHS}
    loss = ask({**task, "images": _IMAGES, "workers": options.workers, "out": str(features)})
    found = _score(unit(np.load(features, allow_pickle=False)), labels)
    print(f"{objective}, seed {seed}: loss {loss:.3f}, {found}", flush=True)
    return found


def _score(z: Embeddings, labels: Labels) -> dict[str, float]:
    train, test = slice(None, _IMAGES), slice(_IMAGES, None)
    true, names = labels[test], tuple(map(str, range(int(labels.max()) + 1)))
    near = weighted_knn(z[train], labels[train], z[test], ks=(_NEIGHBOURS,), classes=len(names))
    probe = fit_probe(z[train], labels[train], class_names=names, seed=0)
    predicted = (near[_NEIGHBOURS], probe.head.logits(z[test]).argmax(axis=1))
    return {
        name: float(np.mean(found == true))
        for name, found in zip(_SCORES, predicted, strict=True)
    }


def _ours(objective: str, seeds: Sequence[int]) -> list[dict[str, float]]:
    """The same scores from our records of some seeds, as far as there are any."""
    files = [RESULTS / f"{objective}.{seed}.json" for seed in seeds]
    records = [record for file in files if (record := Record.read(file)) is not None]
    return [{name: record.value(name) or 0.0 for name in _SCORES} for record in records]


def _beside(theirs: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation of each score on both sides, and every run."""
    found: dict[str, Any] = {"lightly": theirs, "ours": ours}
    for side in ("lightly", "ours"):
        for name in _SCORES:
            values = [run[name] for run in found[side]]
            if values:
                spread = stdev(values) if len(values) > 1 else None
                found[f"{side} {name}"] = {"mean": mean(values), "sd": spread, "n": len(values)}
                print(f"  {side} {name}: {found[f'{side} {name}']}", flush=True)
    return found


if __name__ == "__main__":
    main()
