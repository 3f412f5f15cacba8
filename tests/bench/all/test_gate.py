"""The gate runs every op's tests, and says which op is wrong."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.all import gate, processes
from bench.suites import SUITES
from tests import conftest
from tests.bench.all.stages import ROOT


def test_every_op_has_tests_in_the_gate():
    needed = {op for suite in SUITES.values() for op in suite.needs}
    for on_gpu in (False, True):
        tested = {name.partition(" ")[0] for name in gate.commands(None, on_gpu=on_gpu)}
        assert needed <= tested
    for command in gate.commands(None, on_gpu=True).values():
        files = [word for word in command if word.endswith(".py")]
        assert files and any("mark.gpu" in (ROOT / file).read_text() for file in files)
    names = gate.commands(["replicate_conv"], on_gpu=True)
    assert list(names) == [f"replicate_conv {part}/4" for part in (1, 2, 3, 4)]


def test_on_a_cpu_the_gate_tests_what_runs_there():
    """The C++ of convolutions, and not only what stands in for it."""
    command, *others = gate.commands(["conv_relu", "replicate_conv", "zero_padded_conv"], on_gpu=False).values()
    command += [word for other in others for word in other if word.endswith(".py")]
    listed = subprocess.run([*command, "--collect-only", "-qq"], cwd=ROOT, capture_output=True, text=True).stdout
    for test in ("test_values", "test_gradient", "test_what_does_not_fit_runs_in_aten"):
        assert f"test_conv_relu_native.py::{test}[" in listed
    for op in ("replicate_conv_native", "zero_padded_conv"):
        assert f"test_{op}.py::test_values_and_gradients[" in listed


# Tests with the mark `gpu` that the gate leaves out, and why.
NOT_IN_THE_GATE = {
    **dict.fromkeys(
        ("tests/train/test_trainer.py", "tests/train/test_systems.py", "tests/train/test_held_critic.py"),
        "read checkpoints by safetensors",
    ),
    **dict.fromkeys(
        ("tests/data/loaders/test_dali.py", "tests/data/loaders/test_loader.py"), "the loader checks itself"
    ),
    "tests/tools/test_tune.py": "a stage of its own",
    **{f"tests/bench/test_{suite}.py": "a stage of its own" for suite in ("step", "inference", "paper")},
    "tests/bench/test_base.py": "how suites are timed; each has its own checks",
}


def test_every_file_with_tests_for_a_gpu_is_in_the_gate_or_named():
    in_gate = {word for command in gate.commands(None, on_gpu=True).values() for word in command}
    own = Path(__file__).relative_to(ROOT).as_posix()
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    with_gpu = {name for name in files - {own} if "mark.gpu" in (ROOT / name).read_text()}
    assert with_gpu - in_gate == NOT_IN_THE_GATE.keys()


def test_the_gate_s_files_can_be_read_on_a_bare_machine():
    files = {word for command in gate.commands(None, on_gpu=True).values() for word in command if word.endswith(".py")}
    code = f"""
import sys
sys.modules |= dict.fromkeys(("safetensors", "tyro", "tqdm"))
import pytest
sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *{sorted(files)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def gate_of(tmp_path, output: str, exit_status: int | None) -> dict:
    (tmp_path / "log").write_text(output)
    ended = {"conv_relu": processes.Ended(1.0, 2.0, exit_status)}
    return gate.result(ended, {"conv_relu": tmp_path / "log"})["ops"]["conv_relu"]


STOPPED = "tests/a.py::test_a PASSED\ntests/a.py::test_b FAILED\ntests/a.py::test_c "


@pytest.mark.parametrize(
    ("output", "exit_status", "failed"),
    [
        ("347 deselected in 3.00s", 5, "347 deselected in 3.00s"),
        ("", 3, "no test ran"),
        ("ERROR tests/kernels/test_conv_relu.py", 2, "its tests cannot be read"),
        ("ERROR tests/kernels/test_conv_relu.py::test_a[1-2] - X", 1, "test_a[1-2]"),
        ("tests/a.py::test_a FAILED\nFAILED tests/a.py::test_a - X\nFAILED tests/a.py::test_b", 1, "test_a, test_b"),
        (STOPPED, None, "not done when its time was over, 1 passed by then, test_b"),
        ("", -9, "no test ran"),
    ],
)
def test_an_op_whose_tests_did_not_pass_is_wrong(tmp_path, output, exit_status, failed):
    result = gate_of(tmp_path, output, exit_status)
    assert result["passed"] is False and result["why_not"] == failed


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_op_whose_tests_were_stopped_is_neither_right_nor_wrong(tmp_path, interrupted):
    (tmp_path / "log").write_text("tests/a.py::test_a PASSED\ntests/a.py::test_c ")
    (tmp_path / "bad").write_text(STOPPED)
    ended = processes.Ended(1.0, 2.0, None, interrupted=interrupted)
    alone = gate.result({"a": ended}, {"a": tmp_path / "log"})
    assert alone["passed"] is None and alone["ops"]["a"]["why_not"].startswith("interrupted" if interrupted else "not")
    both = gate.result({"a 1/2": ended, "a 2/2": ended, "b": ended}, {
        "a 1/2": tmp_path / "log", "a 2/2": tmp_path / "bad", "b": tmp_path / "log"})  # fmt: skip
    assert both["passed"] is False and gate.failed_ops(both) == {"a"} and gate.unfinished_ops(both) == {"b"}


def test_the_gate_is_real(tmp_path):
    """One that passes, and a part of it."""
    command = gate.commands(["critic_update"], on_gpu=False, tiny=True)["critic_update"]
    logs = {"critic_update": tmp_path / "log"}
    passed = gate.result(processes.run_together({"critic_update": command}, 300, logs), logs)
    assert passed["passed"] and " passed" in passed["ops"]["critic_update"]["summary"]


def test_parts_of_a_file_are_all_of_it():
    def kept(part: str) -> list[int]:
        options = {"--slow": True, "--part": part}
        hook = SimpleNamespace(pytest_deselected=lambda items: None)
        items = list(range(10))
        conftest.pytest_collection_modifyitems(SimpleNamespace(getoption=options.get, hook=hook), items)
        return items

    assert [kept(f"{part}/3") for part in (1, 2, 3)] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_long_files_come_first_in_the_shares_of_workers(workers):
    names = ["a.py", *conftest.LONG_FILES, "b.py", "c.py"]
    assert all((ROOT / "tests" / name).is_file() for name in conftest.LONG_FILES)
    items = [SimpleNamespace(path=ROOT / "tests" / name) for name in names for _ in range(7 if "_" in name else 20)]
    ordered = conftest._long_ones_first(items, workers)
    assert sorted(map(id, ordered)) == sorted(map(id, items))
    # Of one file all are together, and xdist's shares, each 1 / workers of the tests, begin with a long one.
    runs = [a for a, b in zip(ordered, [None, *ordered], strict=False) if b is None or a.path != b.path]
    assert all(sum(run.path == ROOT / "tests" / name for run in runs) == 1 for name in conftest.LONG_FILES)
    begins = [ordered[len(items) * number // workers].path.name for number in range(workers)]
    assert all(any(name.endswith(begin) for name in conftest.LONG_FILES) for begin in begins)
