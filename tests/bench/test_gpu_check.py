"""``make gpu-check`` where there is no device, and the steps that need none."""

import os
import subprocess
import sys

import pytest

from tools import gpu_check


def test_without_a_device_it_says_why_and_writes_nothing(tmp_path, monkeypatch, capsys):
    if not gpu_check.find_devices()[1]:
        pytest.skip("there is a device")
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(out)])
    assert gpu_check.main() == 0
    assert "did nothing" in capsys.readouterr().out
    assert not out.exists()


def test_a_device_on_which_nothing_can_run_is_a_failure(tmp_path, monkeypatch, capsys):
    if not gpu_check.find_devices()[1]:
        pytest.skip("there is a device, and it can be used")
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(gpu_check, "NODES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert gpu_check.main() == 1
    assert "did nothing" in capsys.readouterr().out


@pytest.fixture
def junit(tmp_path):
    """Returns a function from the bodies of tests to the JUnit file that pytest writes."""

    def junit(*bodies):
        tests = [f"def test_{i}():\n    {body}\n" for i, body in enumerate(bodies)]
        (tmp_path / "test_few.py").write_text("\n".join(["import pytest", *tests]))
        xml = tmp_path / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, f"--junitxml={xml}"]
        subprocess.run([*command, "test_few.py"], cwd=tmp_path, capture_output=True, check=True)
        return xml

    return junit


def test_tests_that_ran_are_counted(junit):
    found = gpu_check.read_tests(junit("pass", "pytest.skip('no such package')"))
    assert found == {"tests": 2, "failures": 0, "errors": 0, "skipped": 1}


@pytest.mark.parametrize(
    "bodies",
    [
        ["pytest.skip('no such package')"] * 2,
        ["pass", "pytest.skip('no CUDA device')"],
        ["pass", "pytest.skip('FAISS sees no GPU')"],
        ["pass", "pytest.skip('onnxruntime has no CUDA here')"],
        ["pass", "pytest.skip('this FAISS is built without GPUs')"],
    ],
)
def test_tests_that_skip_for_want_of_a_device_are_a_failure(junit, bodies):
    with pytest.raises(RuntimeError, match=r"run on the device, got . of 2 skipped: .*no|with"):
        gpu_check.read_tests(junit(*bodies))


def test_a_failed_step_is_a_result():
    def broken(_):
        raise RuntimeError("no such luck")

    found = gpu_check.attempt("broken", broken)
    assert found["status"] == "failed"
    assert found["reason"] == "no such luck"
    assert "RuntimeError" in found["trace"]
    assert gpu_check.attempt("good", lambda folder: {"n": 1})["n"] == 1


def test_what_a_command_says_is_part_of_the_failure():
    with pytest.raises(RuntimeError, match=r"(?s)bundle ended with 2.*expected a bundle"):
        gpu_check.embedkit("bundle", "verify", "nowhere")
