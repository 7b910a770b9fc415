"""The command line as a whole: help, laziness, exit codes, messages."""

import json
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from embedkit.cli import COMMANDS, cli, main

HEAVY = ("torch", "onnxruntime", "faiss", "sklearn", "scipy", "grpc", "PIL")


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "objectives"]])
def test_help_and_list_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom embedkit.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\nassert not loaded, loaded\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_help_and_list_answer_in_under_300_ms() -> None:
    for arguments in (["--help"], ["list"]):
        times = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "embedkit", *arguments], check=True, capture_output=True
            )
            times.append(time.perf_counter() - start)
        assert sorted(times)[3] < 0.3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_list_as_json_names_the_methods_of_each_kind() -> None:
    result = CliRunner().invoke(cli, ["list", "--json"])
    found = json.loads(result.output)
    assert {"simclr", "vicreg", "supcon", "byol", "cross_entropy"} <= set(found["objectives"])
    assert {"knn", "mahalanobis"} <= set(found["detectors"])
    assert {"pgd", "square"} <= set(found["attacks"])
    assert set(found["encoders"]) == {"resnet", "vit"}
    assert all(text for entries in found.values() for text in entries.values())


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_wrong_usage_exits_with_2_and_says_what_was_expected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code(["trian"]) == 2
    assert "trian" in capsys.readouterr().err
    assert exit_code(["bundle", "verify", "nowhere"]) == 2
    assert "expected a bundle" in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["--version"]) == 0
    assert "0.1.0" in capsys.readouterr().out


def test_a_server_that_must_be_named_is_asked_for_as_usage() -> None:
    data = ["--train", "digits", "--test", "digits:test", "--out", "report"]
    result = CliRunner().invoke(cli, ["eval", *data])
    assert result.exit_code == 2
    assert "Missing option '--server'" in result.output


@pytest.mark.parametrize("bind", ["foo", "127.0.0.1:99999", ":1", "127.0.0.1:"])
def test_an_address_that_is_none_is_refused(bind, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--bind", bind])
    assert stopped.value.code == 2
    assert "HOST:PORT or unix:PATH" in capsys.readouterr().err
