"""How OpenMP's threads wait, as OpenMP itself says it was told."""

import os
import subprocess
import sys

import pytest

from embedkit.runtime.threads import wait_briefly

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP")
def test_a_commands_threads_wait_briefly():
    """OpenMP writes its settings when torch loads it; the command ends at the recipe."""
    environment = {k: v for k, v in os.environ.items() if k not in NAMES}
    done = subprocess.run(
        [sys.executable, "-m", "embedkit", "train", "no-recipe.toml", "--out", "no-run"],
        env={**environment, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "GOMP_SPINCOUNT = '1000'" in done.stderr


@pytest.mark.parametrize("settings", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_what_the_user_has_set_stays(settings):
    environment = dict(settings)
    wait_briefly(environment)
    assert environment == settings
