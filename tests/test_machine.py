"""What a run decides about this machine, and what it refuses."""

import os
import subprocess

import pytest
import torch

from fastvae import machine, native_library
from fastvae.cli import main
from fastvae.errors import UsageError
from fastvae.machine import processor_instructions  # itself, and not what the tests' machine seems to have

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("instructions", "value", "reason"),
    [
        ((), "fp32", "the processor has neither avx512_bf16 nor amx_bf16"),
        (("avx512_bf16",), "bf16", "the processor has avx512_bf16"),
        (("amx_bf16",), "bf16", "the processor has amx_bf16"),
        (("avx512_bf16", "amx_bf16"), "bf16", "the processor has amx_bf16"),
    ],
)
def test_auto_follows_from_the_processors_instructions(processor, instructions, value, reason):
    processor(*instructions)
    choice = machine.choose_precision("auto", CPU)
    assert choice.value == value and choice.reason.startswith(reason)
    assert {machine.choose_precision(given, CPU).value for given in ("fp32", "bf16")} == {"fp32", "bf16"}


def test_what_torch_may_not_use_does_not_count(processor):
    processor("avx512_bf16", torch_uses="AVX2")
    choice = machine.choose_precision("auto", CPU)
    assert choice.value == "fp32" and "avx512_bf16, but ATEN_CPU_CAPABILITY" in choice.reason
    processor("avx512_bf16", onednn=False)
    choice = machine.choose_precision("auto", CPU)
    assert choice.value == "fp32" and "without oneDNN" in choice.reason


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("limit", "deciding"),
    [
        ("AVX2", None),
        ("avx2", None),
        ("AVX512_CORE", None),
        ("AVX512_CORE_VNNI", None),
        ("AVX512_CORE_BF16", "avx512_bf16"),
        ("AVX512_CORE_AMX", "amx_bf16"),
        ("ALL", "amx_bf16"),
        ("unknown", "amx_bf16"),
    ],
)
def test_a_limit_to_onednns_instructions_is_kept(processor, monkeypatch, name, limit, deciding):
    processor("avx512_bf16", "amx_bf16")
    monkeypatch.setenv(name, limit)
    choice = machine.choose_precision("auto", CPU)
    assert choice.value == ("bf16" if deciding else "fp32")
    assert choice.reason == f"the processor has {deciding}" if deciding else f"{name}={limit.upper()}" in choice.reason


def test_onednns_newer_variable_wins(processor, monkeypatch):
    processor("avx512_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    assert machine.choose_precision("auto", CPU).value == "bf16"


@pytest.mark.parametrize("has", [True, False])
def test_instructions_are_read_from_torch_of_either_age(monkeypatch, has):
    told = {"avx512_bf16": has, "amx_bf16": False, "architecture": "x86_64"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    expected = {"avx512_bf16"} if has else set()
    assert processor_instructions() == expected
    monkeypatch.setattr(torch.cpu, "get_capabilities", None)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert processor_instructions() == expected


def test_info_names_the_instruction_that_decided(processor, monkeypatch, capsys):
    processor("avx512_bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["info"]) == 0
    assert "precision    bf16: the processor has avx512_bf16\n" in capsys.readouterr().out


def test_without_a_compiler_the_step_runs_eager(monkeypatch):
    monkeypatch.setattr(native_library.shutil, "which", lambda name: None)
    choice = machine.choose_compile("auto", CPU)
    assert choice.value == "off" and "C++ compiler" in choice.reason
    with pytest.raises(UsageError, match=r"--compile on requested, but there is no C\+\+ compiler"):
        machine.choose_compile("on", CPU)


@pytest.mark.parametrize(
    ("capability", "precision", "compiled"), [((6, 1), "fp32", "off"), ((7, 5), "fp32", "on"), ((9, 0), "bf16", "on")]
)
def test_old_and_new_gpus(monkeypatch, capability, precision, compiled):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    cuda = torch.device("cuda")
    assert machine.choose_precision("auto", cuda).value == precision
    assert machine.choose_compile("auto", cuda).value == compiled


def test_a_commit_is_fastvae_s_own(tmp_path, monkeypatch):
    """Not that of a repository around the environment that it is installed in."""
    installed = tmp_path / ".venv" / "fastvae" / "machine.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    (tmp_path / "file").touch()
    for name in [name for name in os.environ if name.startswith("GIT_")]:  # of a hook that runs the tests
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "theirs"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(machine, "__file__", str(installed))
    assert machine._commit() is None
    subprocess.run(["git", "add", "-f", str(installed)], cwd=tmp_path, check=True)
    assert machine._commit()


def test_cuda_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.choose_device("auto") == CPU
    with pytest.raises(UsageError, match="--device cpu"):
        machine.choose_device("cuda")
