"""The short form of `kill_and_resume`."""

import subprocess
import sys


def test_kills_at_random_moments_cost_nothing(request):
    kills = "8" if request.config.getoption("--slow") else "2"
    command = [sys.executable, "-m", "tests.train.kill_and_resume", "--kills", kills, "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith(f"{kills} kills")
