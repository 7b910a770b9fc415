"""Dockerfile and Kubernetes manifests: syntax, and agreement with the server they start."""

import json
import re
import shlex

import click
import pytest
import yaml

from embedkit.cli.serve import command

INSTRUCTIONS = {
    *("FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "ENV"),
}


@pytest.fixture(params=["embedders.yaml", "collections.yaml"])
def manifest(request, repository):
    return repository / "deploy" / "kubernetes" / request.param


@pytest.fixture
def pod(manifest):
    (workload,) = (d for d in documents(manifest) if "template" in d["spec"])
    return workload["spec"]["template"]["spec"]


def documents(manifest):
    return list(yaml.safe_load_all(manifest.read_text()))


def stages(repository):
    """Instructions of each stage of the Dockerfile, lines joined."""
    text = (repository / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found, name = {}, ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction, _, rest = line.partition(" ")
        assert instruction in INSTRUCTIONS, line
        if instruction == "FROM":
            name = re.fullmatch(r"\S+ AS (\w+)", rest).group(1)
            found[name] = {}
        found[name].setdefault(instruction, []).append(rest.strip())
    return found


def options(arguments):
    """Parse arguments as the server would; fails on one that it does not know."""
    with click.Context(command, info_name="serve") as context:
        # The parser alone: the files that are named exist in the cluster only.
        values, rest, _ = command.make_parser(context).parse_args(list(arguments))
    assert not rest
    return values


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_image_starts_the_server_as_nobody_in_particular(repository, target):
    stage = stages(repository)[target]
    entry = json.loads(stage["ENTRYPOINT"][0])
    assert entry[:2] == ["embedkit", "serve"]
    params = options(entry[2:])
    ports = {params["bind"].rpartition(":")[2], params["metrics_bind"].rpartition(":")[2]}
    assert set(shlex.split(stage["EXPOSE"][0])) == ports
    assert stage["USER"] == ["embedkit"]
    assert stage["STOPSIGNAL"] == ["SIGTERM"]


def test_what_the_image_copies_is_let_through(repository):
    ignored = (repository / ".dockerignore").read_text().splitlines()
    for stage in stages(repository).values():
        for copy in stage.get("COPY", []):
            for source in copy.split()[:-1]:
                assert (repository / source).exists(), source
                assert f"!{source}" in ignored


def test_the_manifest_passes_options_that_the_server_knows(pod):
    (container,) = pod["containers"]
    params = options(container["args"])
    assert pod["terminationGracePeriodSeconds"] > float(params["grace_s"]) + 5
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    for argument in container["args"]:
        path = argument.partition("=")[2]
        if path.startswith("/"):
            assert path.rpartition("/")[0] in mounts
    assert {m["name"] for m in container["volumeMounts"]} >= {v["name"] for v in pod["volumes"]}


def test_probes_ask_the_side_port(pod):
    (container,) = pod["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {"grpc": 50051, "metrics": 9090}
    paths = {name: container[name]["httpGet"]["path"] for name in PROBES}
    assert paths == PROBES
    for name in PROBES:
        assert container[name]["httpGet"]["port"] in ports


PROBES = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def test_pods_may_do_no_more_than_they_need(pod):
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]) == {"requests", "limits"}


def test_only_one_process_owns_the_collections(repository):
    (workload,) = (
        d
        for d in documents(repository / "deploy" / "kubernetes" / "collections.yaml")
        if d["kind"] == "StatefulSet"
    )
    assert workload["spec"]["replicas"] == 1


@pytest.mark.peer
def test_the_schemas_of_kubernetes_agree(manifest):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in documents(manifest):
        kubernetes_validate.validate(document, "1.37", strict=True)
