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

# Beside the ops: tests that a GPU runs. tests/bench/all/test_gate.py names those that are left out.
OTHERS = {
    "optim": "tests/test_optim.py",
    "accelerated": "tests/inference/test_accelerated.py",
    "runner": "tests/train/test_runner.py",
    "feed": "tests/train/test_feed.py",
    "snapshot": "tests/train/test_snapshot.py",
    "late_work": "tests/train/test_late_work.py",
    "layout": "tests/train/test_layout.py",
    "rounded_weights": "tests/train/test_rounded_weights.py",
    "lossnet": "tests/lossnet/test_pair.py",
    "models": "tests/models/test_batch_norm.py",
    "held_share": "tests/objectives/test_held_share.py",
}
# Of an op with hundreds of kernels to compile.
_PROCESSES = {"replicate_conv": 4}
_OF_A_CPU = (
    "odd_shapes or one_layer or several_steps or equals_reference or in_aten or interpreted "
    "or ((conv_relu_native or replicate_conv_native or zero_padded_conv) and (test_values or test_gradient))"
)


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
    """Whether all passed, and by process whether it passed, why not, and its last line.

    `passed` is None where nothing failed and not everything was done.
    """
    tests = {name: _result(ended[name], logs[name]) | {"seconds": ended[name].seconds} for name in ended}
    passed = [test["passed"] for test in tests.values()]
    return {"passed": False if False in passed else None if None in passed else True, "ops": tests}


def failed_ops(gate: Mapping[str, Any]) -> set[str]:
    """The names without their parts of those with a test that failed, or whose tests could not be run."""
    return _with(False, gate)


def unfinished_ops(gate: Mapping[str, Any]) -> set[str]:
    """The names of those whose tests were not all done, while none of them failed."""
    return _with(None, gate) - failed_ops(gate)


def _with(passed: bool | None, gate: Mapping[str, Any]) -> set[str]:
    return {name.partition(" ")[0] for name, of_op in gate.get("ops", {}).items() if of_op["passed"] is passed}


def _result(ended: Ended, log: Path) -> dict[str, Any]:
    try:
        output = log.read_text(errors="replace")
    except OSError:
        output = ""
    last = (output.strip().splitlines() or [""])[-1]
    failed, passed, why = _failed(output), ended.exit_status == 0, None
    if ended.exit_status is None:
        done = len(re.findall(r"\bPASSED\b", output))
        stopped = "interrupted" if ended.interrupted else "not done when its time was over"
        passed, why = False if failed else None, ", ".join([f"{stopped}, {done} passed by then", *failed])
    elif not passed:
        why = ", ".join(failed) or last or "no test ran"
    return {"passed": passed, "why_not": why, "summary": last}


def _failed(output: str) -> list[str]:
    """Names of tests, from the lines that appear as each ends and from the summary."""
    test = r"\S+?\.py(?:::(\S+))?"
    found = re.findall(rf"^{test} (?:FAILED|ERROR)\b|^(?:FAILED|ERROR) {test}", output, re.MULTILINE)
    return list(dict.fromkeys(first or second or "its tests cannot be read" for first, second in found))
