"""The short form of `kill_and_resume`."""

import re
import subprocess
import sys


def test_kills_at_random_moments_cost_nothing(request):
    kills = "8" if request.config.getoption("--slow") else "2"
    command = [sys.executable, "-m", "tests.train.kill_and_resume", "--kills", kills, "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith(f"{kills} kills")
    if kills == "8":  # at least one of the six of training came when there was something to lose
        assert re.search("killed (training|writing|removing)", done.stdout), done.stdout
