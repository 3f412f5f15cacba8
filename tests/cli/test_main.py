"""The command line itself."""

import logging
import subprocess
import sys

import pytest

from fastvae.cli import COMMANDS, main
from fastvae.version import __version__


def test_usage_and_version(capsys):
    assert main([]) == 2
    assert main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(name in usage for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    try:
        code = main([command, "--help"])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 0
    assert f"usage: fastvae {command}" in capsys.readouterr().out


def test_info_names_what_runs_and_why(processor, capsys):
    processor()
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert all(topic in said for topic in ("device", "precision", "compile", "compiler", "Triton", "DALI", "cache"))


def test_it_leaves_the_caller_s_logging_as_it_was():
    log = logging.getLogger("fastvae")
    before = log.level, list(log.handlers)
    assert main(["generate", "/nowhere"]) == 1
    assert (log.level, log.handlers) == before


def test_help_does_not_wait_for_torch():
    code = "import sys, fastvae.cli; fastvae.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
