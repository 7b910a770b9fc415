"""Every objective under the same conditions: trained, exported, served, measured through gRPC.

    python -m tools.leaderboard --data FOLDER [--objectives simclr,dcl] [--seeds 0,1,2]
        [--limit-s 3600] [--one-more] [--render]

The first 10,000 images of Fashion-MNIST, 8 epochs, batches of 256, the ResNet of 0.17 M
parameters. Most runs take one to two minutes of one core (OMP_NUM_THREADS=1); each leaves a
file in docs/results/leaderboard. A run whose file agrees in recipe and code is not done again,
so that the table can be filled over several sittings; one that is killed loses the steps since
its last checkpoint. FOLDER has fashion_mnist.npz, kmnist_test.npz and notmnist_test.npz.
"""

import argparse
import fcntl
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from embedkit.errors import Cancelled
from embedkit.runtime.environment import code_digest
from tools.board.entries import Entry, entries
from tools.board.page import write_page
from tools.board.record import RESULTS, Record, wanted
from tools.board.work import Images, bundle_of, perform

ROOT = Path(__file__).resolve().parent.parent
NOTHING_LEFT = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if something was done, 4 if nothing was left to do."""
    options = _options(arguments)
    if options.render:
        write_page(options.results, options.page)
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    with _alone(options.work):
        return _run(options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    data = os.environ.get("EMBEDKIT_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the data")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "leaderboard")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "leaderboard.md")
    parser.add_argument("--objectives", default="", help="rows, by comma; all by default")
    parser.add_argument("--seeds", default="0,1,2", help="in the order in which they are done")
    parser.add_argument("--limit-s", type=float, default=0, help="start no run after it")
    parser.add_argument("--one-more", action="store_true", help="do one run that is missing")
    parser.add_argument("--retry", action="store_true", help="do failed runs again")
    parser.add_argument("--render", action="store_true", help="write the page, run nothing")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    """Do what is missing, all rows of a seed before the next seed."""
    began, done, images = time.perf_counter(), 0, None
    for entry, plan in _missing(options):
        late = options.limit_s and time.perf_counter() - began > options.limit_s
        if late or (done and options.one_more):
            break
        images = images or Images.read(options.data)
        print(f"{entry.name}, seed {plan.seed}: running", flush=True)
        record = _attempt(entry, plan, options.work, images)
        record.write(options.results)
        done += 1
        print(_line(record), flush=True)
    return 0 if done else NOTHING_LEFT


def _missing(options: argparse.Namespace) -> Iterator[tuple[Entry, Record]]:
    """Runs without a record that agrees, and whose teachers are there."""
    chosen = [name for name in options.objectives.split(",") if name]
    rows = {entry.name: entry for entry in entries()}
    unknown = [name for name in chosen if name not in rows]
    if unknown:
        sys.exit(f"expected rows among {', '.join(rows)}; got {', '.join(unknown)}")
    package = code_digest()
    for seed in map(int, options.seeds.split(",")):
        for entry in rows.values():
            if (chosen and entry.name not in chosen) or (entry.name == "raw_pixels" and seed):
                continue
            plan = wanted(entry, seed, package)
            if _is_done(plan, options.results, retry=options.retry):
                continue
            if all(bundle_of(t, seed, options.work).is_dir() for t in entry.teachers):
                yield entry, plan


def _is_done(plan: Record, results: Path, *, retry: bool) -> bool:
    """Whether a record of the same recipe and code is there."""
    found = Record.read(plan.path(results))
    agrees = found is not None and (found.recipe, found.code) == (plan.recipe, plan.code)
    return agrees and (found is None or found.status == "ok" or not retry)


def _attempt(entry: Entry, plan: Record, work: Path, images: Images) -> Record:
    """One run; an error is recorded, so that the others still run; an interruption is not."""
    try:
        return perform(entry, plan, work, images)
    except Cancelled as stop:
        sys.exit(f"{entry.name}, seed {plan.seed}: {stop}")
    except Exception as error:
        traceback.print_exc()
        return replace(plan, status="failed", problem=f"{type(error).__name__}: {error}")


def _line(record: Record) -> str:
    if record.status != "ok":
        return f"{record.row}, seed {record.seed}: failed: {record.problem}"
    knn, linear = record.value("knn.top1"), record.value("linear.top1")
    seconds = record.training.get("seconds", 0)
    return f"{record.row}, seed {record.seed}: knn {knn}, linear {linear}, {seconds:.0f} s"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process fill the same folder."""
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"expected {folder} for this process alone, got another one at work in it")
        yield


if __name__ == "__main__":
    raise SystemExit(main())
