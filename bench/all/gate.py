"""The gate: does every op compute the right thing on this machine?

Each op's tests are a process of their own, since on a GPU compiling takes longest, one core for each process. On a GPU
the tests of what stands on the ops are run, too.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.all.processes import ROOT, Ended
from bench.suites import SUITES

# Beside the ops: tests that a GPU runs.
OTHERS = {
    "optim": "tests/test_optim.py",
    "runner": "tests/train/test_runner.py",
    "feed": "tests/train/test_feed.py",
    "layout": "tests/train/test_layout.py",
    "rounded_weights": "tests/train/test_rounded_weights.py",
    "lossnet": "tests/lossnet/test_pair.py",
    "models": "tests/models/test_batch_norm.py",
}
# Of an op with hundreds of kernels to compile.
_PROCESSES = {"replicate_conv": 4}
_OF_A_CPU = "odd_shapes or one_layer or several_steps or equals_reference"


def commands(ops: Iterable[str] | None, *, on_gpu: bool, tiny: bool = False) -> dict[str, list[str]]:
    """The tests' processes by name: an op's, "replicate_conv 1/4" if it has several, or one of `OTHERS`.

    Args:
        ops: those to test, and nothing else; None for all that suites need, and on a GPU all that it can test.
        on_gpu: whether to run their kernels at real shapes, or those in the interpreter and those of ATen's form.
        tiny: whether a tenth of the tests is enough.
    """
    others = OTHERS if ops is None and on_gpu else {}
    if ops is None:
        needed = [op for suite in SUITES.values() for op in suite.needs]
        ops = dict.fromkeys(needed + (_of_a_gpu() if on_gpu else []))
    made = {}
    for op in ops:
        files = [str(path.relative_to(ROOT)) for path in _files(op)]
        parts = _PROCESSES.get(op, 1) if on_gpu and not tiny else 1
        for part in range(1, parts + 1):
            name, flags = (f"{op} {part}/{parts}", ["--part", f"{part}/{parts}"]) if parts > 1 else (op, [])
            made[name] = [*_pytest(on_gpu), *files, *flags]
    made |= {name: [*_pytest(on_gpu), file] for name, file in others.items()}
    return {name: [*command, "--part", "1/10"] for name, command in made.items()} if tiny else made


def _of_a_gpu() -> list[str]:
    """The ops with tests that need a GPU."""
    files = [path for path in _files("") if "mark.gpu" in path.read_text()]
    return sorted({path.stem.removeprefix("test_").removesuffix("_triton") for path in files})


def _files(op: str) -> list[Path]:
    return sorted((ROOT / "tests/kernels").glob(f"test_{op}*.py"))


def _pytest(on_gpu: bool) -> list[str]:
    chosen = ["-m", "gpu"] if on_gpu else ["-m", "not gpu", "-k", _OF_A_CPU]
    return [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *chosen]


def result(ended: Mapping[str, Ended], logs: Mapping[str, Path]) -> dict[str, Any]:
    """Whether all passed, and by process whether it passed, which tests failed, and its last line."""
    tests = {name: _result(ended[name].exit_status, logs[name]) | {"seconds": ended[name].seconds} for name in ended}
    return {"passed": all(test["passed"] for test in tests.values()), "ops": tests}


def wrong_ops(gate: Mapping[str, Any]) -> set[str]:
    """The names without their parts of what did not pass."""
    return {name.partition(" ")[0] for name, of_op in gate.get("ops", {}).items() if not of_op["passed"]}


def _result(exit_status: int | None, log: Path) -> dict[str, Any]:
    try:
        output = log.read_text(errors="replace")
    except OSError:
        output = ""
    last = (output.strip().splitlines() or [""])[-1]
    failed = None
    if exit_status is None:
        passed = len(re.findall(r"\bPASSED\b", output))
        failed = ", ".join([f"not done when its time was over, {passed} passed by then", *_failed(output)])
    elif exit_status:
        failed = ", ".join(_failed(output)) or last or "no test ran"
    return {"passed": exit_status == 0, "failed": failed, "summary": last}


def _failed(output: str) -> list[str]:
    """Names of tests, from the lines that appear as each ends and from the summary."""
    test = r"\S+?\.py(?:::(\S+))?"
    found = re.findall(rf"^{test} (?:FAILED|ERROR)\b|^(?:FAILED|ERROR) {test}", output, re.MULTILINE)
    return list(dict.fromkeys(first or second or "its tests cannot be read" for first, second in found))
