"""Served against bare onnxruntime, in one run: ``python tools/bench_serve.py [--seconds 5]``.

The server runs on core 0 and the client on core 1; the bare session runs on core 0 alone,
before each model, on one thread. Efficiency is served images per second over the bare session's
best; ``by CPU`` is the same by CPU seconds, which holds where other programs disturb the clock.
Prints one line per case and writes JSON with ``--out``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from embedkit.runtime.session import Session

SIDE, DIM = 32, 384
MODELS = {"light": (64, 2), "heavy": (128, 6)}
CASES = (("unary", 1, 64), ("multi-image", 64, 4), ("lone unary", 1, 1))


def build_cnn(width: int, blocks: int) -> bytes:
    """A plain CNN: a stem, ``blocks`` convolutions, pooling, one matrix, normalisation."""
    rng = np.random.default_rng(0)
    constants: list[onnx.TensorProto] = [
        numpy_helper.from_array(np.array(255, np.float32), "scale"),
        numpy_helper.from_array(np.array(1e-12, np.float32), "tiny"),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    channels = 3
    for i in range(blocks + 1):
        fan_in = channels * 9
        weight = rng.standard_normal((width, channels, 3, 3)) / np.sqrt(fan_in / 2)
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
        conv = helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], pads=[1] * 4)
        conv.attribute.append(helper.make_attribute("strides", [2 if i == 0 else 1] * 2))
        nodes.append(conv)
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]))
        channels = width
    last = rng.standard_normal((width, DIM)).astype(np.float32)
    constants.append(numpy_helper.from_array(last, "last"))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{blocks + 1}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "last"], ["features"]),
        helper.make_node("ReduceL2", ["features"], ["norm"], axes=[1], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["safe"]),
        helper.make_node("Div", ["features", "safe"], ["embedding"]),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("images", TensorProto.UINT8, ["n", SIDE, SIDE, 3])]
    outputs = [info(n, TensorProto.FLOAT, ["n", DIM]) for n in ("embedding", "features")]
    graph = helper.make_graph(nodes, "cnn", inputs, outputs, constants)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def session_of(graph: bytes) -> "Session":
    """The bare session, on one thread."""
    from embedkit.preprocess import InputSpec
    from embedkit.runtime.session import Session

    return Session(graph, "sha256:bench", InputSpec(SIDE, SIDE, 3), threads=1)


def write_models(folder: Path) -> None:
    """A bundle for each model of the table."""
    from embedkit.bundle import Golden, Manifest, write_bundle
    from embedkit.preprocess import InputSpec

    images = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    for name, (width, blocks) in MODELS.items():
        graph = build_cnn(width, blocks)
        golden = Golden(images, session_of(graph).run(images, ["embedding"])["embedding"])
        shapes = {"embedding": [DIM], "features": [DIM]}
        manifest = Manifest(name, 1, InputSpec(SIDE, SIDE, 3), DIM, shapes)
        files = {"model.onnx": graph, "golden.npz": golden.to_bytes()}
        write_bundle(folder, manifest, files)


def measure_raw(models: Path, name: str, seconds: float) -> dict[str, float]:
    """Images per second of the bare session at its best batch size, and ms of a lone image."""
    session = session_of((models / name / "1" / "model.onnx").read_bytes())
    rng = np.random.default_rng(2)
    rates: dict[int, float] = {}
    cpu_us: dict[int, float] = {}
    for size in (1, 8, 16, 32, 64):
        images = rng.integers(0, 256, (size, SIDE, SIDE, 3), dtype=np.uint8)
        session.run(images, ["embedding"])
        began, cpu, runs = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < seconds / 5:
            session.run(images, ["embedding"])
            runs += 1
        rates[size] = runs * size / (time.perf_counter() - began)
        cpu_us[size] = (time.process_time() - cpu) / (runs * size) * 1e6
    best = min(cpu_us, key=lambda size: cpu_us[size])
    return {
        "images_per_s": rates[best],
        "cpu_us_per_image": cpu_us[best],
        "batch": best,
        "lone_ms": 1e3 / rates[1],
    }


def measure_served(
    address: str, model: str, case: tuple[str, int, int], seconds: float
) -> dict:
    """Drive one case in a closed loop and count what comes back."""
    import grpc

    from embedkit.wire.codec import encode_tensor
    from embedkit.wire.proto import embedding_pb2

    _, per_call, in_flight = case
    images = np.random.default_rng(3).integers(
        0, 256, (per_call, SIDE, SIDE, 3), dtype=np.uint8
    )
    request = embedding_pb2.EmbedRequest(model=model, pixels=encode_tensor(images))
    data = request.SerializeToString()
    latencies: list[float] = []
    batches: list[int] = []
    stop = threading.Event()
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.unary_unary("/embedkit.v1.EmbeddingService/Embed")

        def loop() -> None:
            while not stop.is_set():
                began = time.perf_counter()
                reply = call(data)
                latencies.append(time.perf_counter() - began)
                if len(latencies) % 64 == 0:
                    answer = embedding_pb2.EmbedResponse.FromString(reply)
                    batches.append(answer.timing.batch_size)

        threads = [threading.Thread(target=loop) for _ in range(in_flight)]
        for thread in threads:
            thread.start()
        time.sleep(seconds * 0.2)
        done, began, cpu = len(latencies), time.perf_counter(), server_cpu_s()
        time.sleep(seconds)
        done, cpu = len(latencies) - done, server_cpu_s() - cpu
        elapsed = time.perf_counter() - began
        stop.set()
        for thread in threads:
            thread.join()
    tail = np.array(latencies[len(latencies) // 5 :]) * 1e3
    return {
        "images_per_s": done * per_call / elapsed,
        "cpu_us_per_call": cpu / max(done, 1) * 1e6,
        "cpu_share": cpu / elapsed,
        "p50_ms": float(np.percentile(tail, 50)),
        "p99_ms": float(np.percentile(tail, 99)),
        "mean_batch": float(np.mean(batches)) if batches else 0.0,
    }


def server_cpu_s() -> float:
    """CPU seconds that the server has used."""
    import psutil

    times = psutil.Process(int(os.environ["BENCH_SERVER_PID"])).cpu_times()
    return float(times.user + times.system)


def pinned(core: int, *arguments: str, **environment: str) -> dict:
    """Run this file's worker on one core and return what it prints."""
    command = ["taskset", "-c", str(core), sys.executable, __file__, *arguments]
    env = {**os.environ, **environment}
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout)


def run(seconds: float, server_arguments: list[str]) -> list[dict]:
    """Measure every model and case."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        write_models(models)
        command = ["taskset", "-c", "0", sys.executable, "-m", "embedkit", "serve"]
        command += ["--models", str(models), "--data-dir", f"{folder}/var"]
        command += ["--bind", "127.0.0.1:0", "--metrics-bind", "off", *server_arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                address = json.loads((server.stdout or sys.stdin).readline())["address"]
                for name in MODELS:
                    raw = pinned(0, "raw", str(models), name, str(seconds))
                    for case in CASES:
                        served = pinned(
                            1,
                            *("served", address, name, json.dumps(case), str(seconds)),
                            BENCH_SERVER_PID=str(server.pid),
                        )
                        rows.append(row_of(name, case, raw, served))
                        print(render(rows[-1]), flush=True)
            finally:
                server.terminate()
    return rows


def row_of(name: str, case: tuple[str, int, int], raw: dict, served: dict) -> dict:
    """One line of the table."""
    efficiency = served["images_per_s"] / raw["images_per_s"]
    busy_us = raw["cpu_us_per_image"] * case[1]
    served["overhead_us_per_call"] = served["cpu_us_per_call"] - busy_us
    served["cpu_efficiency"] = busy_us / served["cpu_us_per_call"]
    served["over_lone_ms"] = served["p50_ms"] - raw["lone_ms"]
    return {"model": name, "case": case[0], "efficiency": efficiency, "raw": raw, **served}


def render(row: dict) -> str:
    """A line for people."""
    raw = row["raw"]
    return (
        f"{row['model']:6} {row['case']:12} efficiency {row['efficiency']:.3f}  "
        f"{row['images_per_s']:7.0f}/s of {raw['images_per_s']:.0f}/s "
        f"(batch {raw['batch']}, {raw['cpu_us_per_image'] / 1e3:.2f} ms/image)  "
        f"by CPU {row['cpu_efficiency']:.3f}  "
        f"overhead {row['overhead_us_per_call']:.0f} us/call  p50 {row['p50_ms']:.2f} ms "
        f"(+{row['over_lone_ms']:.2f})  p99 {row['p99_ms']:.2f}  "
        f"batch {row['mean_batch']:.0f}  cpu {row['cpu_share']:.2f}"
    )


def main() -> None:
    """Entry point; ``raw`` and ``served`` are the pinned workers."""
    if sys.argv[1:2] == ["raw"]:
        print(json.dumps(measure_raw(Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))))
        return
    if sys.argv[1:2] == ["served"]:
        case = tuple(json.loads(sys.argv[4]))
        print(json.dumps(measure_served(sys.argv[2], sys.argv[3], case, float(sys.argv[5]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="per case")
    parser.add_argument("--out", type=Path, help="JSON file")
    options, server_arguments = parser.parse_known_args()
    rows = run(options.seconds, server_arguments)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
