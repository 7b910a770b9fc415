"""Other servers of the same graph: their environments, their processes, what they speak."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

import grpc
import numpy as np

from embedkit.bench.cores import pinned
from embedkit.bench.serving.load import Sender
from embedkit.bench.serving.measure import Case, Dial, dial
from embedkit.bench.serving.senders import make_request
from embedkit.bench.serving.server import Target, process_clock
from embedkit.bundle import Bundle
from embedkit.errors import Unavailable
from embedkit.types import Embeddings, Images
from embedkit.wire.proto import embedding_pb2
from tools.http_sender import HttpSender

__all__ = ["PEERS", "Peer", "install", "serve"]

_SCRIPTS = Path(__file__).resolve().parent / "peers"
_BATCH = 64
_READY_S = 90.0
_STOP_S = 20.0
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Peer:
    """A server that is not ours.

    Attributes:
        name: What the table calls it.
        script: Below ``tools/peers``.
        packages: What its environment needs; empty for the one that runs this.
        path: Of its requests; empty for gRPC.
        is_json: Whether pixels travel as base64 in JSON.
    """

    name: str
    script: str
    packages: tuple[str, ...] = ()
    path: str = ""
    is_json: bool = False


PEERS = (
    Peer("minimal gRPC", "grpc_server.py"),
    Peer("mosec", "mosec_server.py", ("mosec",), "/inference"),
    Peer("LitServe", "litserve_server.py", ("litserve",), "/predict", True),
    Peer("Ray Serve", "ray_server.py", ("ray[serve]",), "/"),
)


def install(
    peers: list[Peer],
    folder: Path,
    skipped: dict[str, str],
    shared: tuple[str, ...] = ("onnxruntime", "numpy"),
) -> dict[Peer, str]:
    """Return the Python of each peer's environment; those that fail go to ``skipped``.

    Args:
        peers: Each gets an environment unless it needs no packages.
        folder: Where they are made.
        skipped: Gets the reason for each that cannot be made.
        shared: Packages that all of them get, in the version that is installed here.
    """
    pythons: dict[Peer, str] = {}
    common = [f"{name}=={version(name)}" for name in shared]
    for peer in peers:
        if not peer.packages:
            pythons[peer] = sys.executable
            continue
        place = folder / peer.script.removesuffix(".py")
        python = str(place / "bin" / "python")
        print(f"installing {peer.name} ...", file=sys.stderr, flush=True)
        try:
            if not (place / "done").exists():
                shutil.rmtree(place, ignore_errors=True)
                run_quietly(sys.executable, "-m", "venv", str(place))
                run_quietly(python, "-m", "pip", "install", "-q", *peer.packages, *common)
                (place / "done").touch()
        except subprocess.CalledProcessError as error:
            lines = [x for x in error.stderr.splitlines() if "error" in x.lower()]
            skipped[peer.name] = f"not installed: {' '.join(lines)[-300:] or error}"
            continue
        pythons[peer] = python
    return pythons


def run_quietly(*command: str) -> None:
    """Run a command and keep what it says for the case that it fails."""
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def serve(peer: Peer, python: str, bundle: Path, case: Case) -> Iterator[tuple[Target, Dial]]:
    """Run a peer on core 0 with batches of 64 images, and wait until it answers as it should.

    Raises:
        Unavailable: If it ends, or does not answer well within 90 s.
    """
    opened = Bundle(bundle, verify=False)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    # Ray writes a token to the home folder, and its sockets below the temporary one.
    with (
        tempfile.TemporaryDirectory(prefix="peer-") as home,
        open(f"{home}/log", "w+", encoding="utf-8") as log,
    ):
        command, environment = _command(peer, python, bundle, case, port)
        with pinned((0,)):
            process = subprocess.Popen(
                command,
                env={**environment, "HOME": home},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            golden = opened.golden()
            _wait(process, log, peer, address, golden.images, golden.embeddings)
            target = Target(address, opened.manifest.name, "", process_clock(process.pid))
            shape = opened.manifest.input.shape
            yield target, _http(peer, address, shape) if peer.path else dial(target, shape)
        finally:
            _stop(process)


def _command(
    peer: Peer, python: str, bundle: Path, case: Case, port: int
) -> tuple[list[str], dict[str, str]]:
    graph = str(bundle / "model.onnx")
    shape = Bundle(bundle, verify=False).manifest.input.shape
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment |= {
        "GRAPH": graph,
        "SHAPE": ",".join(map(str, shape)),
        "REQUESTS": str(max(1, _BATCH // case.images)),
        "PORT": str(port),
        "RAY_USAGE_STATS_ENABLED": "0",
        # The minimal server uses our messages.
        "PYTHONPATH": "" if peer.packages else str(_SCRIPTS.parent.parent),
    }
    command = [python, str(_SCRIPTS / peer.script)]
    if peer.script.startswith("grpc"):
        command += [graph, str(port), str(_BATCH)]
    elif peer.script.startswith("mosec"):
        command += ["--address", "127.0.0.1", "--port", str(port)]
    return command, environment


def _wait(
    process: "subprocess.Popen[bytes]",
    log: IO[str],
    peer: Peer,
    address: str,
    images: Images,
    expected: Embeddings,
) -> None:
    """Ask for the bundle's golden embeddings until they come."""
    limit, reason = time.monotonic() + _READY_S, ""
    while time.monotonic() < limit and process.poll() is None:
        try:
            found = _ask(peer, address, images)
        except (OSError, grpc.RpcError) as error:
            reason = str(error)
            time.sleep(0.2)
            continue
        if found.size != expected.size or np.abs(found - expected.ravel()).max() > _TOLERANCE:
            raise Unavailable(f"expected the golden embeddings, got {found.size} other numbers")
        return
    log.seek(0)
    said = log.read()[-500:].replace("\n", " ")
    raise Unavailable(f"expected an answer, got exit {process.poll()}: {reason[-200:]} {said}")


def _ask(peer: Peer, address: str, images: Images) -> Embeddings:
    """All numbers of the embeddings of some images, in a row."""
    if peer.path:
        request = urllib.request.Request(
            f"http://{address}{peer.path}", _body(peer, images), {"Content-Type": _kind(peer)}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as reply:
            return np.frombuffer(reply.read(), np.float32)
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary("/embedkit.v1.EmbeddingService/Embed")
        reply = embedding_pb2.EmbedResponse.FromString(
            call(make_request("", images), timeout=30)
        )
    return np.frombuffer(reply.embeddings.data, np.float32)


def _http(peer: Peer, address: str, shape: tuple[int, int, int]) -> Dial:
    """What sends random images to a peer over HTTP."""

    def connect(case: Case) -> Sender:
        rng = np.random.default_rng(3)
        images = rng.integers(0, 256, (case.images, *shape), dtype=np.uint8)
        headers = (f"Content-Type: {_kind(peer)}",)
        return HttpSender(address, peer.path, _body(peer, images), headers=headers)

    return connect


def _body(peer: Peer, images: Images) -> bytes:
    data = images.tobytes()
    if not peer.is_json:
        return data
    return json.dumps({"pixels": base64.b64encode(data).decode()}).encode()


def _kind(peer: Peer) -> str:
    return "application/json" if peer.is_json else "application/octet-stream"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a peer and everything that it started: they share a process group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
