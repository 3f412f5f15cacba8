"""What a run decides about this machine, and what it refuses."""

import pytest
import torch

from fastvae import machine
from fastvae.errors import UsageError

CPU = torch.device("cpu")


def test_auto_decides_by_a_trial_and_says_so(monkeypatch):
    monkeypatch.setattr(machine, "cpu_bf16_speedup", lambda: 2.0)
    assert machine.choose_precision("auto", CPU).value == "bf16"
    monkeypatch.setattr(machine, "cpu_bf16_speedup", lambda: 1.0)
    choice = machine.choose_precision("auto", CPU)
    assert choice.value == "fp32" and "1.0 times" in choice.reason
    assert machine.choose_precision("bf16", CPU).value == "bf16"


def test_the_trial_measures_something():
    assert 0.01 < machine.cpu_bf16_speedup() < 100


def test_without_a_compiler_the_step_runs_eager(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    choice = machine.choose_compile("auto", CPU)
    assert choice.value == "off" and "C++ compiler" in choice.reason
    with pytest.raises(UsageError, match=r"--compile on, but there is no C\+\+ compiler"):
        machine.choose_compile("on", CPU)


@pytest.mark.parametrize(
    ("capability", "precision", "compiled"), [((6, 1), "fp32", "off"), ((7, 5), "fp32", "on"), ((9, 0), "bf16", "on")]
)
def test_old_and_new_gpus(monkeypatch, capability, precision, compiled):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    cuda = torch.device("cuda")
    assert machine.choose_precision("auto", cuda).value == precision
    assert machine.choose_compile("auto", cuda).value == compiled


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_that_is_not_there():
    assert machine.choose_device("auto") == CPU
    with pytest.raises(UsageError, match="--device cpu"):
        machine.choose_device("cuda")
