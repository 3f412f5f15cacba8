"""tools/dev installs by uv, and by pip where uv cannot."""

import importlib.util
import json
import subprocess
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

DEV = Path(__file__).parents[2] / "tools" / "dev"


@pytest.fixture
def dev(tmp_path, monkeypatch):
    """The program as a module, whose environment is a folder that has a Python and nothing else."""
    loader = SourceFileLoader("dev", str(DEV))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("dev", loader))
    loader.exec_module(module)
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "python").touch()
    (tmp_path / ".venv" / "fastvae-installed.json").write_text("{}")
    for name, value in {"VENV": tmp_path / ".venv", "BIN": bin_folder, "PYTHON": bin_folder / "python"}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module.shutil, "rmtree", lambda *_, **__: None)  # of an environment made for other packages
    return module


def commands(dev, monkeypatch, uv_status):
    """What is started to install the tests' packages, if uv ends so; None: there is no uv."""
    started = []

    def run(command, **_):
        words = [Path(command[0]).name, *map(str, command[1:])]
        started.append(words)
        if words[0] == "uv" and uv_status is None:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, uv_status if words[0] == "uv" else 0)

    monkeypatch.setattr(dev.subprocess, "run", run)
    dev.install("[dev]")
    return started


def test_uv_installs(dev, monkeypatch):
    (command,) = commands(dev, monkeypatch, 0)
    assert command[:3] == ["uv", "pip", "install"] and command[-2:] == ["-e", ".[dev]"]
    assert json.loads((dev.VENV / "fastvae-installed.json").read_text())["extras"] == ["[dev]"]


@pytest.mark.parametrize("uv_status", [None, 2])
def test_where_uv_cannot_pip_installs_the_same(dev, monkeypatch, uv_status):
    first, second = commands(dev, monkeypatch, uv_status)
    assert second[:4] == ["python", "-m", "pip", "--quiet"] and second[-4:] == first[-4:]


def test_an_environment_that_has_it_all_is_left_alone(dev, monkeypatch):
    commands(dev, monkeypatch, 0)
    assert commands(dev, monkeypatch, 0) == []


def test_torch_comes_without_uv(dev, monkeypatch):
    installed = []

    def run(command, **_):
        if Path(command[0]).name == "uv":
            raise FileNotFoundError(command[0])
        if command[-1] == "uv":  # an index without it
            return subprocess.CompletedProcess(command, 1)
        installed.append(command[-1])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(dev.subprocess, "run", run)
    dev.install_torch()
    assert installed == [dev.TORCH]
