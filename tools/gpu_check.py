"""Everything that needs a CUDA device, in one JSON: ``python -m tools.gpu_check --out FILE``.

Runs every ``gpu`` test, serves a network with the CUDA provider beside the bare session, trains
a short run and searches a collection. On a machine without a CUDA device it says why it did
nothing and exits with 0; on one with a device it exits with 1 if a step failed, a test skipped
for want of a device, or nothing ran because torch or onnxruntime cannot use it.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.retrieve.store import Query
from embedkit.retrieve.stores.local import LocalStore
from embedkit.runtime.environment import code_digest, machine, package_versions
from embedkit.types import Collection

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "embedkit",
    "torch",
    "onnxruntime-gpu",
    "onnxruntime",
    "faiss-gpu",
    "faiss-cpu",
)
_LACKS_DEVICE = re.compile(r"\b(CUDA|GPUs?|device)\b", re.IGNORECASE)

NODES = Path("/dev")
"""Where the driver shows its devices, also to a torch that is built without CUDA."""

Step = Callable[[Path], dict[str, Any]]


def main() -> int:
    """Run every step and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="JSON file")
    out = parser.parse_args().out
    devices, missing = find_devices()
    if missing:
        print(f"gpu-check did nothing: {missing}")
        return int(bool(devices))
    steps = {name: attempt(name, step) for name, step in STEPS.items()}
    report = {
        "schema": "embedkit.gpu-check/1",
        "code": code_digest(),
        "versions": package_versions(PACKAGES),
        "machine": machine(),
        "devices": devices,
        "steps": steps,
    }
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, step in steps.items():
        print(f"{name}: {step['status']} {step.get('reason', '')}")
    return int(any(step["status"] != "ok" for step in steps.values()))


def find_devices() -> tuple[list[str], str]:
    """Names of the CUDA devices, and why there is nothing to do, or empty."""
    import onnxruntime
    import torch

    if not torch.cuda.is_available():
        build = torch.version.cuda or "none: a CPU build"
        why = f"torch {torch.__version__} sees no CUDA device (its CUDA: {build})"
        nodes = [node.name for node in sorted(NODES.glob("nvidia[0-9]*"))]
        if nodes:
            why += f", though there is {nodes[0]}; install torch with CUDA"
        return nodes, why
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    providers = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in providers:
        return devices, (
            f"onnxruntime has {providers} and no CUDAExecutionProvider, though there is "
            f"{devices[0]}; install embedkit[gpu]"
        )
    return devices, ""


def attempt(name: str, step: Step) -> dict[str, Any]:
    """Run a step; a failure is its result."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        try:
            found = {"status": "ok", **step(Path(folder))}
        except Exception as error:
            found = {"status": "failed", "reason": str(error), "trace": traceback.format_exc()}
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def run_tests(folder: Path) -> dict[str, Any]:
    """Every test marked ``gpu``; none may fail, and none may skip for want of a device."""
    xml = folder / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={xml}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-2000:]}")
    return read_tests(xml)


def read_tests(xml: Path) -> dict[str, Any]:
    """How many tests of a JUnit file ran and how many skipped.

    Raises:
        RuntimeError: If all of them skipped, or one for want of a device.
    """
    suite = ET.parse(xml).getroot().find("testsuite")
    if suite is None:
        raise RuntimeError(f"expected a testsuite in {xml.name}, got none")
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    reasons = sorted({skip.get("message", "") for skip in suite.iter("skipped")})
    if counts["skipped"] == counts["tests"] or any(map(_LACKS_DEVICE.search, reasons)):
        raise RuntimeError(
            f"expected every gpu test to run on the device, got {counts['skipped']} of "
            f"{counts['tests']} skipped: {'; '.join(reasons)}"
        )
    return counts


def run_serving(folder: Path) -> dict[str, Any]:
    """The heavy network on the device, served and bare."""
    out = folder / "serve.json"
    embedkit(
        *("bench", "serve", "--provider", "cuda", "--model", "heavy", "--rounds", "3"),
        *("--server-cores", "any", "--client-cores", "any", "--out", str(out)),
    )
    return dict(json.loads(out.read_text(encoding="utf-8")))


def run_training(folder: Path) -> dict[str, Any]:
    """A short run of the digits recipe on the device."""
    recipe = str(ROOT / "recipes" / "digits.toml")
    steps = ("--set", "schedule.epochs=5")
    embedkit("train", recipe, *steps, "--device", "cuda", "--out", str(folder / "run"))
    return dict(json.loads((folder / "run" / "run.json").read_text(encoding="utf-8")))


def run_search(folder: Path) -> dict[str, Any]:
    """Exact search of 100,000 vectors through the store, in batches of 1 and 256."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((100_000, 384)).astype(np.float32)
    store = LocalStore(folder)
    try:
        store.create(Collection("bench", 384))
        for start in range(0, len(vectors), 1000):
            ids = [str(i) for i in range(start, start + 1000)]
            store.upsert("bench", ids, vectors[start : start + 1000])
        rates = {}
        for count in (1, 256):
            query = Query(vectors[:count], 10, with_payload=False)
            if store.search("bench", query).rows[0][0].id != "0":
                raise RuntimeError("expected a vector to be its own nearest neighbour")
            began, runs = time.perf_counter(), 0
            while time.perf_counter() - began < 3:
                store.search("bench", query)
                runs += 1
            rates[str(count)] = runs * count / (time.perf_counter() - began)
    finally:
        store.close()
    return {"vectors": len(vectors), "dim": 384, "queries_per_s": rates}


def embedkit(*arguments: str) -> None:
    """Run a command of ours; what it says is part of the error if it fails."""
    command = [sys.executable, "-m", "embedkit", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}"
        )


STEPS: dict[str, Step] = {
    "tests": run_tests,
    "serving": run_serving,
    "training": run_training,
    "search": run_search,
}


if __name__ == "__main__":
    sys.exit(main())
