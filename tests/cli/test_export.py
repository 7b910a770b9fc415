"""``embedkit export`` and ``embedkit bundle``, as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from embedkit.bundle import Bundle
from embedkit.cli import main
from embedkit.cli.bundle import command as bundle_command
from embedkit.cli.export import command
from embedkit.encoders.encoder import build_encoder
from embedkit.errors import BundleDamaged, InvalidInput
from embedkit.export.import_model import Architecture

CONFIG = json.dumps({"name": "resnet", "blocks": [1], "width": 4})


def invoke(*arguments: object):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command printed, and the bundle it wrote."""
    folder = tmp_path_factory.mktemp("export")
    encoder = build_encoder(
        {
            **json.loads(CONFIG),
            "input": Architecture("resnet", (8, 8, 1), (0.5,), (0.25,)).build().input.to_dict(),
        }
    )
    state = {name.removeprefix("net."): value for name, value in encoder.state_dict().items()}
    state |= {"fc.weight": torch.rand(3, 4), "fc.bias": torch.rand(3)}
    save_file(state, folder / "w.safetensors")
    origin = ("--from", f"torch:{folder / 'w.safetensors'}", "--encoder", CONFIG)
    shape = ("--input", "8x8x1", "--mean", "0.5", "--std", "0.25")
    names = ("--classes", "a, b,c", "--licence", "MIT")
    fitted = ("--detector", "mahalanobis", "--detector-data", "digits:test")
    models = folder / "models"
    result = invoke("--name", "small", "--models", models, *origin, *shape, *names, *fitted)
    return result.output, models / "small" / "1"


def test_import_prints_what_it_wrote(exported) -> None:
    output, path = exported
    bundle = Bundle(path)
    assert bundle.manifest.licence == "MIT"
    assert bundle.head().class_names == ("a", "b", "c")
    assert "exported small version 1: dim 4" in output
    assert "heads: default; detectors: mahalanobis" in output
    assert "limit 1e-05" in output
    assert bundle.model_digest() in output
    assert str(path.parent.parent.parent) not in bundle.read("CARD.md").decode()


def test_show_prints_manifest_and_files(exported) -> None:
    _, path = exported
    shown = CliRunner().invoke(bundle_command, ["show", str(path)]).output
    for text in ("small", "8 x 8 x 1 uint8", "mahalanobis", "model.onnx", "MIT", "sha256:"):
        assert text in shown
    as_json = CliRunner().invoke(bundle_command, ["show", "--json", str(path)]).output
    assert json.loads(as_json)["name"] == "small"


def test_verify_finds_a_flipped_byte_and_exits_with_1(exported, capsys) -> None:
    _, path = exported
    result = CliRunner().invoke(bundle_command, ["verify", str(path)])
    assert result.exit_code == 0
    assert "all as they were written" in result.output
    assert "golden embeddings in fp32" in result.output
    quick = CliRunner().invoke(bundle_command, ["verify", "--no-run", str(path)])
    assert "golden" not in quick.output
    graph = path / "model.onnx"
    original = graph.read_bytes()
    graph.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    try:
        result = CliRunner().invoke(bundle_command, ["verify", str(path)])
        assert isinstance(result.exception, BundleDamaged)
        with pytest.raises(SystemExit) as stop:
            main(["bundle", "verify", str(path)])
        assert stop.value.code == 1
        assert "model.onnx" in capsys.readouterr().err
    finally:
        graph.write_bytes(original)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either a RUN folder or --from"),
        (["run", "--from", "torch:x"], "either a RUN folder or --from"),
        (["run", "--mean", "1"], "--mean with --from only"),
        (["run", "--precision", "fp8"], "some of fp32, fp16, int8, got fp8"),
        (["--from", "timm:x"], "torch:FILE"),
        (["--from", "torch:"], "torch:FILE"),
        (["--from", "torch:x"], "--encoder NAME"),
        (["--from", "torch:x", "--encoder", "resnet20", "--input", "32x32"], "32x32x3"),
        (["--from", "torch:x", "--encoder", "resnet20", "--input", "8x8x2"], "x3"),
        (["--from", "torch:x", "--encoder", "resnet20", "--mean", "a,b"], "numbers like"),
        (["--from", "torch:x", "--encoder", "resnet20", "--head-keys", "w"], "WEIGHT,BIAS"),
        (["--from", "torch:x", "--encoder", "resnet20"], "give --input"),
        (["run", "--detector", "beyond", "--detector-data", "digits"], "a server can run"),
        (["run", "--head", "digitz"], "did you mean"),
        (["no-such-run"], "finished training run"),
    ],
)
def test_wrong_usage_says_what_was_expected(tmp_path, arguments, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        invoke("--name", "m", "--models", tmp_path, *arguments)
    assert getattr(caught.value, "exit_code", None) == 2


def test_strict_refuses_an_unreadable_file(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "cut.png").write_bytes(b"not an image")
    with pytest.raises(InvalidInput, match="got 1 that are not"):
        invoke("--name", "m", "--models", tmp_path, "run", "--head", tmp_path, "--strict")


def test_class_names_of_a_data_set_must_exist(tmp_path: Path) -> None:
    from embedkit.cli.export import _class_names

    assert _class_names("digits") == tuple("0123456789")
    (tmp_path / "x.bmp").write_bytes(b"")
    with pytest.raises(InvalidInput):
        _class_names(str(tmp_path))


def test_help_of_both_commands_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom embedkit.cli import main\n"
        "try:\n    main([sys.argv[1], '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'onnxruntime', 'numpy'} & set(sys.modules)"
    )
    for name in ("export", "bundle"):
        subprocess.run([sys.executable, "-c", code, name], check=True, capture_output=True)


def test_a_folder_that_cannot_be_made_is_told_before_the_work(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main(["export", "no-such-run", "--name", "m", "--models", str(tmp_path / "file" / "x")])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: expected files and folders that can be used")
    assert "Traceback" not in said
