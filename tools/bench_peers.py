"""The same ONNX file behind other servers, in one run: ``python -m tools.bench_peers serve``.

``python -m tools.bench_peers index`` is about other indexes: see ``tools/peer_index.py``.

mosec, LitServe and Ray Serve get a virtual environment of their own each, which is thrown away
at the end (``--venvs DIR`` keeps it); one that cannot be installed or started is left out, with
the reason. Every server runs on core 0, the load on core 1, and the bare session takes turns
with each of them on core 0: efficiency is served over bare images per second, same round.

embedkit and the minimal server speak gRPC, the others HTTP; one sender each, both print what a
call costs the client.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from embedkit.bench.cores import parse_cores
from embedkit.bench.models import NETWORKS, write_network
from embedkit.bench.serving.measure import Case, Dial, Pace, dial, measure
from embedkit.bench.serving.raw import RawSession, raw_session
from embedkit.bench.serving.result import Figures, best_size, figures_of, raw_figures
from embedkit.bench.serving.run import Plan, report_head
from embedkit.bench.serving.server import Target, own_server
from embedkit.bundle import Bundle
from embedkit.errors import Unavailable
from tools import peer_index
from tools.peer_process import PEERS, Peer, install, serve

CASES = (Case("multi-image", 64, 4), Case("unary", 1, 64), Case("unary", 1, 1))
STREAM = Case("stream", 16, 16)


def main() -> None:
    """Measure, print the table, write the JSON."""
    if sys.argv[1:2] == ["index"]:
        peer_index.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=["serve", "index"])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", choices=[*NETWORKS], action="append", help="default: both")
    parser.add_argument("--peer", action="append", help=f"of {[p.name for p in PEERS]}")
    parser.add_argument("--venvs", type=Path, help="keep the environments in this folder")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    pace = Pace(options.seconds, options.rounds, client_cores=parse_cores("1"))
    chosen = [p for p in PEERS if not options.peer or p.name in options.peer]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        skipped: dict[str, str] = {}
        pythons = install(chosen, options.venvs or folder, skipped)
        rows = []
        for name in options.model or NETWORKS:
            bundle = write_network(folder / "models", name)
            for server, figures in compare(bundle, pythons, pace, skipped):
                rows.append({"model": name, "server": server, **figures})
                print_row(rows[-1])
    print_table(rows, skipped)
    if options.out:
        plan = Plan(CASES, folder, pace=pace, server_cores=(0,))
        report = {**report_head(plan), "skipped": skipped, "rows": rows}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def compare(
    bundle: Path, pythons: dict[Peer, str], pace: Pace, skipped: dict[str, str]
) -> Iterator[tuple[str, Figures]]:
    """Measure embedkit, then each peer, against one bare session."""
    shape = Bundle(bundle, verify=False).manifest.input.shape
    with raw_session(bundle, cores=(0,), threads=1) as raw:
        with own_server(bundle, cores=(0,), threads=1) as target:
            for case in (*CASES, STREAM):
                yield "embedkit", turns(target, raw, case, pace, dial(target, shape))
        for peer, python in pythons.items():
            for case in CASES:
                try:
                    with serve(peer, python, bundle, case) as (target, connect):
                        yield peer.name, turns(target, raw, case, pace, connect)
                except Unavailable as error:
                    skipped[f"{peer.name}, {bundle.parent.name}, {case.name}"] = str(error)


def turns(target: Target, raw: RawSession, case: Case, pace: Pace, connect: Dial) -> Figures:
    """One case of one server, with what the bare session did between its turns."""
    rounds = measure(target, raw, [case], pace, connect)[case]
    figures = figures_of(case, rounds, best_size(rounds))
    return {**figures, "raw": raw_figures(rounds)}


def print_row(row: dict[str, Any]) -> None:
    """Print one measurement for people who watch."""
    efficiency, latency = row["efficiency"], row["latency_ms"]
    client_us = row["client_cpu_us_per_call"]["median"]
    print(
        f"{row['server']:13} {row['model']:6} {row['name']:15} "
        f"efficiency {efficiency['median']:.3f} "
        f"[{efficiency['min']:.3f}-{efficiency['max']:.3f}] "
        f"by CPU {row['cpu_efficiency']['median']:.3f}  p50 {latency['p50']:.2f} ms  "
        f"p99 {latency['p99']:.2f} ms  client {client_us:.0f} us/call",
        flush=True,
    )


def print_table(rows: list[dict[str, Any]], skipped: dict[str, str]) -> None:
    """Print the ratios: a line per load, a column per server."""
    servers = list(dict.fromkeys(row["server"] for row in rows))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        line = cells.setdefault((row["model"], row["name"]), {})
        line[row["server"]] = f"{row['efficiency']['median']:.2f}"
        if "over_lone_ms" in row:
            line[row["server"]] = f"+{row['over_lone_ms']['median']:.2f} ms"
    print("\n| load |", " | ".join(servers), "|\n|---|" + "---|" * len(servers))
    for (model, name), line in cells.items():
        print(f"| {model}, {name} |", " | ".join(line.get(s, "-") for s in servers), "|")
    for name, reason in skipped.items():
        print(f"left out: {name}: {reason}")


if __name__ == "__main__":
    main()
