"""``embedkit index`` from a folder of image files to a search result, on a real server."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from embedkit.bundle import Golden, Manifest, write_bundle
from embedkit.cli import cli
from embedkit.data.records.file import read_records
from embedkit.errors import AlreadyExists, CollectionFull, InvalidInput, NotFound
from embedkit.preprocess import InputSpec
from embedkit.serve.server import running_server
from embedkit.types import CollectionLimits

SIDE = 4
Run = Callable[..., Result]


def graph() -> bytes:
    """The embedding is the image itself, as a unit vector."""
    size = SIDE * SIDE * 3
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "flat"], ["features"]),
        helper.make_node("ReduceL2", ["features"], ["norm"], axes=[1], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["safe"]),
        helper.make_node("Div", ["features", "safe"], ["embedding"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([-1, size], np.int64), "flat"),
        numpy_helper.from_array(np.array(1e-12, np.float32), "tiny"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIDE, SIDE, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name in ("embedding", "features")
    ]
    made = helper.make_graph(nodes, "pixels", [images], outputs, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_model(models: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    rows = images.reshape(2, -1).astype(np.float32)
    embeddings = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    size = SIDE * SIDE * 3
    outputs = {"embedding": [size], "features": [size]}
    manifest = Manifest("pixels", 1, InputSpec(SIDE, SIDE, 3), size, outputs)
    golden = Golden(images, embeddings).to_bytes()
    write_bundle(models, manifest, {"model.onnx": graph(), "golden.npz": golden})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run ``embedkit index`` against a server."""
    write_model(tmp_path / "models")
    with running_server(models=tmp_path / "models", data_dir=tmp_path / "var") as address:

        def invoke(command: str, *arguments: str, **options: str) -> Result:
            line = ["index", command, *arguments, "--server", address]
            return CliRunner().invoke(cli, line, **options)  # type: ignore[arg-type]

        yield invoke


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of JPEG files of several sizes, and one file that is no image."""
    rng = np.random.default_rng(1)
    for name, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            pixels = np.full((20 + i, 30, 3), colour) + rng.integers(-20, 20, (20 + i, 30, 3))
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(tmp_path / "photos" / name / f"{i}.jpg", quality=90)
    (tmp_path / "photos" / "red" / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    return tmp_path / "photos"


def ok(result: Result) -> str:
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


def test_from_a_folder_of_files_to_a_search_result(run: Run, photos: Path) -> None:
    assert "48 dimensions of pixels" in ok(run("create", "photos", "--model", "pixels"))
    added = run("add", "photos", str(photos))
    assert "stored 10 images, left out 1; photos holds 10" in ok(added)
    query = photos / "red" / "3.jpg"
    table = ok(run("search", "photos", str(query), "-k", "5"))
    lines = table.splitlines()
    assert lines[0].split() == ["#", "score", "id", "label", "path"]
    assert len(lines) == 6
    assert "red/3.jpg" in lines[1]
    assert "1.0000" in lines[1]
    hits = [
        json.loads(line)
        for line in ok(run("search", "photos", str(query), "--json")).splitlines()
    ]
    assert len(hits) == 10
    assert [hit["payload"]["label"] for hit in hits] == ["red"] * 5 + ["blue"] * 5
    assert hits[0]["id"] == "red/3.jpg"
    assert Path(hits[0]["payload"]["path"]) == query


def test_adding_again_replaces_and_a_prefix_keeps_apart(run: Run, photos: Path) -> None:
    ok(run("create", "photos", "--model", "pixels"))
    ok(run("add", "photos", str(photos)))
    assert "holds 10" in ok(run("add", "photos", str(photos)))
    assert "holds 20" in ok(run("add", "photos", str(photos), "--prefix", "again/"))


def test_arrays_have_split_and_position_for_ids(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (7, 9, 9, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x_train=images, y_train=np.arange(7) % 2)
    ok(run("create", "c", "--model", "pixels"))
    ok(run("add", "c", str(tmp_path / "set.npz")))
    Image.fromarray(images[4]).save(tmp_path / "query.png")
    lines = ok(run("search", "c", str(tmp_path / "query.png"), "-k", "1", "--json"))
    hit = json.loads(lines)
    assert (hit["id"], hit["payload"]) == ("train/4", {"label": "0"})


def test_collections_are_listed_described_emptied_and_dropped(run: Run, photos: Path) -> None:
    ok(run("create", "b", "--dim", "3", "--metric", "l2"))
    ok(run("create", "a", "--model", "pixels"))
    ok(run("add", "a", str(photos)))
    listed = json.loads(ok(run("list", "--json")))
    assert [(c["name"], c["count"], c["metric"]) for c in listed] == [
        ("a", 10, "cosine"),
        ("b", 0, "l2"),
    ]
    assert [line.split()[0] for line in ok(run("list")).splitlines()] == ["name", "a", "b"]
    facts = ok(run("stats", "a"))
    assert "vectors       10" in facts
    assert "sha256:" in facts
    assert json.loads(ok(run("stats", "a", "--json")))["dim"] == 48
    assert ok(run("delete", "a", "red/0.jpg", "nobody")) == "deleted 1 of 2\n"
    assert ok(run("delete", "a", "--filter", "path like '%/red/_.jpg'")) == "deleted 4\n"
    assert "reclaimed" in ok(run("compact", "a"))
    kept = run("drop", "a", input="n\n")
    assert kept.exit_code == 1
    assert "5 vectors" in kept.output
    assert ok(run("drop", "a", "--yes")) == "dropped a\n"
    assert [c["name"] for c in json.loads(ok(run("list", "--json")))] == ["b"]


def test_a_filter_of_the_search_and_what_to_delete(run: Run, photos: Path) -> None:
    ok(run("create", "c", "--model", "pixels"))
    ok(run("add", "c", str(photos)))
    image = str(photos / "red" / "1.jpg")
    lines = ok(run("search", "c", image, "--filter", "label != 'red'", "--json")).splitlines()
    assert lines
    assert {json.loads(line)["payload"]["label"] for line in lines}.isdisjoint({"red"})
    for arguments, got in (([], "neither"), (["a", "--filter", "b = 1"], "both")):
        result = run("delete", "c", *arguments)
        assert result.exit_code == 2
        assert f"expected IDs or --filter, got {got}" in result.output
    assert json.loads(ok(run("stats", "c", "--json")))["count"] == 10


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["stats", "nothing"], NotFound),
        (["add", "nothing", "digits"], NotFound),
        (["create", "c"], InvalidInput),
        (["create", "c", "--model", "nothing"], NotFound),
        (["create", "taken", "--dim", "3"], AlreadyExists),
        (["create", "c", "--dim", "3", "--kind", "magic"], InvalidInput),
        (["search", "taken", "{image}", "--filter", "a == 1"], InvalidInput),
        (["add", "taken", "no such data"], NotFound),
        (["drop", "nothing", "--yes"], NotFound),
    ],
)
def test_errors_are_those_of_the_server(
    run: Run, photos: Path, arguments: list[str], error: type[Exception]
) -> None:
    ok(run("create", "taken", "--model", "pixels"))
    image = str(photos / "red" / "1.jpg")
    result = run(*[argument.replace("{image}", image) for argument in arguments])
    assert isinstance(result.exception, error), result.exception


@pytest.mark.parametrize("suffix", [".jsonl", ".npz", ".parquet"])
def test_a_collection_goes_to_a_file_and_back(
    run: Run, photos: Path, tmp_path: Path, suffix: str
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs embedkit[parquet]")
    ok(run("create", "a", "--model", "pixels", "--max-vectors", "50"))
    ok(run("add", "a", str(photos)))
    file = tmp_path / f"records{suffix}"
    assert "wrote 10 records" in ok(run("export", "a", str(file)))
    assert "b holds 10" in ok(run("import", "b", str(file)))
    assert "a holds 10" in ok(run("import", "a", str(file)))
    again = tmp_path / f"again{suffix}"
    ok(run("export", "b", str(again)))
    with read_records(file) as (made, first), read_records(again) as (again_made, second):
        assert (made.dim, made.metric, made.model) == (48, "cosine", "pixels")
        assert made.limits == CollectionLimits(vectors=50)
        assert (again_made.model, again_made.limits) == (made.model, made.limits)
        for one, other in zip(first, second, strict=True):
            assert one.vector is not None
            assert other.vector is not None
            assert (one.id, one.payload) == (other.id, other.payload)
            assert one.payload
            assert one.vector.tobytes() == other.vector.tobytes()
    red = tmp_path / f"red{suffix}"
    assert "wrote 5" in ok(run("export", "a", str(red), "--filter", "label = 'red'"))
    assert sorted(p.name for p in tmp_path.glob(".writing*")) == []


def test_files_that_are_refused(run: Run, tmp_path: Path) -> None:
    ok(run("create", "c", "--dim", "2"))
    for name, content, message in (
        ("a.txt", b"", "ends in"),
        ("none.jsonl", None, "got none"),
        ("a.jsonl", b"", "line about the collection"),
        ("b.jsonl", b"{}", "collection"),
        ("c.npz", b"no archive", "archive"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        result = run("import", "c", str(tmp_path / name))
        assert isinstance(result.exception, InvalidInput | NotFound), result.output
        assert message in str(result.exception)
    header = {"name": "c", "dim": 2, "metric": "cosine", "kind": "auto", "storage": "float32"}
    header |= {"model": "", "model_digest": ""}
    for line in (
        '{"id": "a"}',
        '{"id": 1, "vector": [1, 2]}',
        '{"id": "a", "vector": ["x"]}',
        '{"id": "a", "vector": [1, 2], "payload": 3}',
        "[",
    ):
        text = json.dumps({"collection": header}) + "\n" + line
        (tmp_path / "d.jsonl").write_text(text)
        result = run("import", "c", str(tmp_path / "d.jsonl"))
        assert isinstance(result.exception, InvalidInput), line


def test_duplicates_offset_and_verify(run: Run, photos: Path) -> None:
    (photos / "red" / "copy.jpg").write_bytes((photos / "red" / "0.jpg").read_bytes())
    ok(run("create", "a", "--model", "pixels"))
    ok(run("add", "a", str(photos)))
    pairs = ok(run("duplicates", "a", "--threshold", "0.99999")).splitlines()
    assert [line.split()[1:] for line in pairs] == [["red/0.jpg", "red/copy.jpg"]]
    line = ok(run("duplicates", "a", "--threshold", "0.99999", "--json"))
    assert json.loads(line)["first"] == "red/0.jpg"
    cut = run("duplicates", "a", "--threshold", "0.5", "--neighbours", "1")
    assert "warning: some have more than 1 neighbours" in cut.output
    image = str(photos / "red" / "0.jpg")
    hits = ok(run("search", "a", image, "--json", "--exact", "--threshold", "0.99999"))
    assert len(hits.splitlines()) == 2
    after = ok(run("search", "a", image, "--json", "--offset", "1", "-k", "1"))
    assert json.loads(after)["id"] == "red/copy.jpg"
    assert "11 vectors and their index agree" in ok(run("verify", "a"))


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ok(result).splitlines()]


def test_groups_of_hits_and_how_hard_to_try(run: Run, photos: Path) -> None:
    ok(run("create", "c", "--model", "pixels"))
    ok(run("add", "c", str(photos)))
    image = str(photos / "red" / "0.jpg")
    plain = lines_of(run("search", "c", image, "--json"))
    groups = lines_of(
        run("search", "c", image, "--group-by", "label", "--group-size", "2", "--json")
    )
    reds, blues = plain[:2], [h for h in plain if h["id"].startswith("blue")][:2]
    assert [(h["group"], h["id"]) for h in groups] == [
        *(("red", h["id"]) for h in reds),
        *(("blue", h["id"]) for h in blues),
    ]
    table = ok(run("search", "c", image, "--group-by", "label", "-k", "1")).splitlines()
    assert table[0].split()[:4] == ["#", "group", "score", "id"]
    assert table[1].split()[:4] == ["1", "red", "1.0000", "red/0.jpg"]
    assert len(table) == 2
    same = lines_of(run("search", "c", image, "--nprobe", "3", "--json"))
    assert [h["id"] for h in same] == [h["id"] for h in plain]
    refused = run("search", "c", image, "--ef", "9")
    assert isinstance(refused.exception, InvalidInput)
    assert "it is for hnsw" in str(refused.exception)
    assert refused.exception.exit_code == 2
    ok(run("search", "c", image, "--recall-target", "0.9"))
    for wrong in (
        ["--recall-target", "0"],
        ["--nprobe", "0"],
        ["--group-size", "2"],
        ["--group-by", "label", "--offset", "1"],
        ["--group-by", "label", "--threshold", "0.5"],
    ):
        assert run("search", "c", image, *wrong).exit_code == 2, wrong


def test_records_by_id_and_at_random(run: Run, photos: Path) -> None:
    ok(run("create", "c", "--model", "pixels"))
    ok(run("add", "c", str(photos)))
    (one,) = lines_of(run("get", "c", "red/1.jpg", "--json", "--vectors"))
    assert (one["id"], one["payload"]["label"]) == ("red/1.jpg", "red")
    assert np.linalg.norm(one["vector"]) == pytest.approx(1, abs=1e-5)
    some = run("get", "c", "blue/0.jpg", "nobody")
    assert some.exit_code == 1
    assert "not in c: nobody" in some.stderr
    assert [line.split()[0] for line in some.stdout.splitlines()] == ["id", "blue/0.jpg"]
    drawn = lines_of(run("sample", "c", "--n", "4", "--seed", "3", "--json"))
    assert len({r["id"] for r in drawn}) == 4
    assert lines_of(run("sample", "c", "-n", "4", "--seed", "3", "--json")) == drawn
    assert "vector" not in drawn[0]
    reds = ok(run("sample", "c", "--n", "99", "--filter", "label = 'red'"))
    assert len(reds.splitlines()) == 6
    for wrong in (["get", "c"], ["get", "c", "a", "--vectors"], ["sample", "c", "--n", "0"]):
        assert run(*wrong).exit_code == 2, wrong


def test_limits_and_the_state_of_the_index_are_shown(run: Run, photos: Path) -> None:
    ok(run("create", "c", "--model", "pixels", "--max-vectors", "9"))
    assert "9 vectors, bytes per payload as the server allows" in ok(run("stats", "c"))
    result = run("add", "c", str(photos))
    assert isinstance(result.exception, CollectionFull)
    facts = json.loads(ok(run("stats", "c", "--json")))
    assert (facts["count"], facts["limits"]) == (0, {"vectors": 9, "payload_bytes": 0})
    assert (facts["index"]["kind"], facts["index"]["is_building"]) == ("flat", False)
    assert run("create", "d", "--dim", "3", "--max-vectors", "0").exit_code == 2


def test_a_refused_import_leaves_no_collection(run: Run, tmp_path: Path) -> None:
    ok(run("create", "a", "--dim", "2"))
    file = tmp_path / "a.jsonl"
    ok(run("export", "a", str(file)))
    file.write_text(file.read_text() + '{"id": "", "vector": [1, 2]}\n')
    assert isinstance(run("import", "b", str(file)).exception, InvalidInput)
    assert isinstance(run("stats", "b").exception, NotFound)
