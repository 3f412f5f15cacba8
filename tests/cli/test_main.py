"""The command line itself."""

import logging
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from fastvae.cli import COMMANDS, info, main
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


def test_info_without_a_cache(processor, tmp_path, monkeypatch, capsys):
    processor()
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["info"]) == 0
    assert re.search(r"^cache +none: .*file", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("found", ["3.6.0", None])
def test_info_of_a_triton_of_another_name(found, monkeypatch):
    """As those of ROCm and Windows have."""
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(**({"__version__": found} if found else {})))
    monkeypatch.setattr(info.importlib.util, "find_spec", lambda name: name)
    assert info._triton(torch.device("cpu")).startswith(found or "of unknown version")


def test_info_of_a_triton_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(info.importlib.util, "find_spec", lambda name: name)
    assert info._triton(torch.device("cpu")).startswith("cannot be imported (")


def test_it_leaves_the_caller_s_logging_as_it_was():
    log = logging.getLogger("fastvae")
    before = log.level, list(log.handlers)
    assert main(["generate", "/nowhere"]) == 1
    assert (log.level, log.handlers) == before


def test_help_does_not_wait_for_torch():
    code = "import sys, fastvae.cli; fastvae.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
