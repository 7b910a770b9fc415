"""``make gpu-check`` where there is no device, and the steps that need none."""

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
