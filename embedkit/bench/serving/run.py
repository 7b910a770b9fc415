"""One model, measured: server and bare session started, rounds run, figures made."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from embedkit.bench.serving.measure import Case, Pace, Round, dial, measure
from embedkit.bench.serving.raw import RawSession, raw_session
from embedkit.bench.serving.result import SCHEMA, Figures, best_size, figures_of, raw_figures
from embedkit.bench.serving.server import Target, own_server, running
from embedkit.bundle import Bundle
from embedkit.client.sync import connect
from embedkit.errors import InvalidInput
from embedkit.runtime.environment import code_digest, machine, package_versions

__all__ = ["Plan", "report_head", "run"]

_PACKAGES = ("embedkit", "grpcio", "protobuf", "onnxruntime", "onnxruntime-gpu", "numpy")


@dataclass(frozen=True)
class Plan:
    """What to measure of one model, and where.

    Attributes:
        bundle: What the bare session runs, and the server too unless ``server`` is given; None
            only with ``server``: then there is no bare session.
        server: ``HOST:PORT`` of a server that runs already, or empty.
        model: Name on that server; may be empty where it has one model.
        metrics: ``HOST:PORT`` of that server's ``/metrics``, or empty.
        cases: Kinds of load, in the order of a round.
        pace: How long and how often.
        server_cores: Cores of the server and the bare session; empty for any.
        threads: Threads of both.
        provider: Execution provider of both: ``cpu``, ``cuda``, or as onnxruntime calls it.
        precision: Graph of both: ``fp32``, ``fp16`` or ``int8``.
        arguments: Further options of ``embedkit serve``.
    """

    cases: Sequence[Case]
    bundle: Path | None = None
    server: str = ""
    model: str = ""
    metrics: str = ""
    pace: Pace = field(default_factory=Pace)
    server_cores: tuple[int, ...] = ()
    threads: int = 1
    provider: str = "cpu"
    precision: str = "fp32"
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that there is something to measure.

        Raises:
            InvalidInput: If there is neither a bundle nor a server, or no case.
        """
        if self.bundle is None and not self.server:
            raise InvalidInput("expected a bundle to serve or a server, got neither")
        if not self.cases:
            raise InvalidInput("expected at least one kind of load, got none")


def run(plan: Plan, tell: Callable[[int, Case, Round], None] | None = None) -> Figures:
    """Measure one model.

    Args:
        plan: What, where, how long.
        tell: Called after each turn with the number of its round.

    Returns:
        The model's part of the JSON file.

    Raises:
        Unavailable: If the server or the bare session does not answer.
        InvalidInput: If the bundle is not the model that the server has.
    """
    with ExitStack() as stack:
        target = stack.enter_context(_target(plan))
        shape, digest = _ask(target, plan)
        raw = stack.enter_context(_bare(plan)) if plan.bundle is not None else None
        turns = measure(target, raw, plan.cases, plan.pace, dial(target, shape), tell=tell)
    rounds = [turn for case in turns.values() for turn in case]
    best = None if raw is None else best_size(rounds)
    figures: Figures = {
        "model": target.model,
        "digest": digest,
        "image": list(shape),
        "server": plan.server or "own",
        "server_arguments": list(plan.arguments),
        "ready_s": target.ready_s,
        "threads": plan.threads,
        "provider": plan.provider,
        "precision": plan.precision,
    }
    if raw is not None:
        figures["raw"] = raw_figures(rounds)
    return {**figures, "cases": [figures_of(case, turns[case], best) for case in turns]}


def report_head(plan: Plan) -> Figures:
    """What the JSON file starts with: its form, the code, the versions, the machine."""
    return {
        "schema": SCHEMA,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_digest(),
        "versions": package_versions(_PACKAGES),
        "machine": machine(),
        "server_cores": list(plan.server_cores),
        "client_cores": list(plan.pace.client_cores),
        "seconds": plan.pace.seconds,
        "rounds": plan.pace.rounds,
    }


@contextmanager
def _target(plan: Plan) -> Iterator[Target]:
    if plan.server or plan.bundle is None:
        yield running(plan.server, plan.model, plan.metrics)
        return
    graph = ("--provider", plan.provider, "--precision", plan.precision)
    with own_server(
        plan.bundle,
        cores=plan.server_cores,
        threads=plan.threads,
        arguments=(*graph, *plan.arguments),
    ) as target:
        yield target


@contextmanager
def _bare(plan: Plan) -> Iterator[RawSession]:
    if plan.bundle is None:
        raise TypeError("expected a bundle")
    with raw_session(
        plan.bundle,
        cores=plan.server_cores,
        threads=plan.threads,
        provider=plan.provider,
        precision=plan.precision,
    ) as session:
        yield session


def _ask(target: Target, plan: Plan) -> tuple[tuple[int, int, int], str]:
    """Shape of the served model's images and its digest, which must be the bundle's."""
    with connect(target.address) as client:
        known = client.models()
    models = [m for m in known if not target.model or m.name == target.model]
    if len(models) != 1 and not target.model:
        raise InvalidInput(f"expected --model of {[m.name for m in known]}, got none")
    if not models:
        names = [m.name for m in known]
        raise InvalidInput(
            f"expected a model of {names} at {target.address}, got {target.model}"
        )
    served = max(models, key=lambda model: int(model.version))
    if plan.bundle is not None:
        digest = Bundle(plan.bundle, verify=False).model_digest(plan.precision)
        if digest != served.digest:
            raise InvalidInput(
                f"expected {served.name}:{served.version} as in {plan.bundle}, got another "
                "digest: the bare session would run a different graph"
            )
    spec = served.input
    return (spec.height, spec.width, spec.channels), served.digest
