"""``embedkit demo``: the main job on scikit-learn's digits, each step as its own command."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from embedkit.errors import EmbedkitError, InvalidInput, NotFound, Unavailable
from embedkit.types import Pixels

MADE_HERE = ("run", "models", "var", "ood", "report", "server.log")
PATCHES = 500
RADII_255 = ("8", "16", "32")  # of 8x8 images with 17 grey levels, one level is 16


@click.command()
@click.option(
    "--out",
    default="demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the run, the bundle, the collection and the report.",
)
def command(out: Path) -> None:
    """Train, export, serve, index and evaluate on real images, in under 3 minutes on 2 cores.

    The images are scikit-learn's 1,797 handwritten digits. The out-of-distribution sets are
    patches of its two sample photographs (far) and mirrored digits (near).
    """
    started = time.perf_counter()
    _clear(out)
    sets = _write_ood_sets(out / "ood")
    run, models = out / "run", out / "models"
    _step("train", str(_recipe()), "--out", str(run))
    fitted = ("--head", "digits", "--detector", "knn", "--detector-data", "digits")
    _step("export", str(run), "--name", "digits", "--models", str(models), *fitted)
    with _serving(models, out) as address:
        server = ("--server", address)
        _step("index", "create", "digits", "--model", "digits", *server)
        _step("index", "add", "digits", "digits", *server)
        _show_search(address)
        _step(
            *(
                "eval",
                *server,
                "--model",
                "digits",
                "--train",
                "digits",
                "--test",
                "digits:test",
            ),
            *(word for path in sets for word in ("--ood", str(path))),
            *("--bundle", str(models / "digits" / "1"), "--out", str(out / "report")),
            *("--limit-attack", "120", "--pgd-steps", "20", "--square-queries", "200"),
            *(word for radius in RADII_255 for word in ("--radius", radius)),
        )
    click.echo(f"\nall of it took {time.perf_counter() - started:.0f} s")
    click.echo(f"report: {(out / 'report' / 'report.html').resolve()}")


def _clear(out: Path) -> None:
    """Remove what an earlier demo left; refuse a folder that holds anything else."""
    others = [p.name for p in out.iterdir() if p.name not in MADE_HERE] if out.is_dir() else []
    if others:
        raise InvalidInput(
            f"expected an empty folder or an earlier demo at {out}, got {sorted(others)[:5]}; "
            "choose another --out"
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def _recipe() -> Path:
    """The committed digits recipe: in the checkout, or beside the installed package."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package.parent / "recipes", package / "recipes"):
        if (folder / "digits.toml").is_file():
            return folder / "digits.toml"
    raise NotFound(
        f"expected recipes/digits.toml beside {package}, got none; reinstall embedkit"
    )


def _step(name: str, *arguments: str) -> None:
    """Print a command as a user would type it, then run it in this process."""
    click.secho(f"\n$ embedkit {name} {' '.join(arguments)}", bold=True)
    made: click.Command = import_module(f"embedkit.cli.{name}").command
    code = made.main(args=list(arguments), prog_name=f"embedkit {name}", standalone_mode=False)
    if code:
        raise EmbedkitError(f"expected `embedkit {name}` to succeed, got exit code {code}")


def _write_ood_sets(folder: Path) -> tuple[Path, Path]:
    """Write the two novel sets as ``.npz`` and return their paths."""
    from sklearn.datasets import load_sample_images

    from embedkit.data.source import load_dataset

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photos = [photo @ np.array([0.299, 0.587, 0.114]) for photo in load_sample_images().images]
    patches = [_patch(photos[i % len(photos)], rng) for i in range(PATCHES)]
    digits = load_dataset("digits:test").images
    mirrored = np.asarray(digits)[:, :, ::-1]
    paths = (folder / "photo_patches.npz", folder / "mirrored_digits.npz")
    for path, images in zip(paths, (np.stack(patches), mirrored), strict=True):
        np.savez(path, x_test=images)
    return paths


def _patch(photo: npt.NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    """A grey 8x8 patch (8, 8, 1) of a photograph."""
    top, left = (int(rng.integers(0, size - 8)) for size in photo.shape)
    patch: Pixels = np.rint(photo[top : top + 8, left : left + 8, None]).astype(np.uint8)
    return patch


@contextmanager
def _serving(models: Path, out: Path) -> Iterator[str]:
    """Run ``embedkit serve`` as a process of its own on a free port; yield its address."""
    arguments = ["serve", "--models", str(models), "--data-dir", str(out / "var")]
    arguments += ["--bind", "127.0.0.1:0", "--metrics-bind", "off"]
    click.secho(f"\n$ embedkit {' '.join(arguments)} &", bold=True)
    log = out / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedkit", *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        yield _ready_address(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def _ready_address(process: "subprocess.Popen[str]", log: Path) -> str:
    """Read the server's ready line and return the address in it."""
    line = process.stdout.readline() if process.stdout else ""
    if not line.startswith("{"):
        raise Unavailable(f"expected the server's ready line, got {line!r}; see {log}")
    click.echo(line.rstrip())
    return str(json.loads(line)["address"])


def _show_search(address: str) -> None:
    """Search with the first test images and show the labels that come back."""
    import embedkit
    from embedkit.data.source import load_dataset

    test = load_dataset("digits:test").subset(np.arange(5))
    with embedkit.connect(address) as client:
        found = client.search("digits", images=test.images, k=5)
    click.secho("\nnearest neighbours of the first test images, by image", bold=True)
    for label, hits in zip(test.labels if test.labels is not None else [], found, strict=True):
        near = ", ".join(f"{(h.payload or {}).get('label')} ({h.score:.3f})" for h in hits)
        click.echo(f"  a {label} finds {near}")
