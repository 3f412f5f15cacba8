"""All suites, one after the other: `python -m bench all`.

First the gate: each op must compute the right thing. Suites that need an op that does not are not timed; the others
are. Every suite runs in a process of its own, with a share of the time that is left. One that is not done by then is
stopped, and what it had measured is kept. One record, rewritten after every suite, holds all of it, and the suites'
pictures lie beside it. Within 9 minutes on a GPU.
"""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.reporting import record, suite
from bench.suites import SUITES
from fastvae.data.dataset import EMBEDDED, open_images
from fastvae.errors import FastvaeError

ROOT = Path(__file__).parents[1]

# Of all the time, at most; the suites get what the gate does not use.
GATES_SHARE = 0.3
GPU_MINUTES, CPU_MINUTES = 9.0, 40.0
# From the request to end until a suite is killed, in which it writes its record.
GRACE_S = 10.0


@dataclass(frozen=True)
class Run:
    """How a suite's process ended. `exit_status` is None if it was stopped because its time was over."""

    seconds: float
    limit_s: float
    exit_status: int | None


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if the gate or a suite failed."""
    parser = suite.parser("all", __doc__, tiny="every suite tiny; the figures mean nothing")
    parser.add_argument("--only", nargs="+", choices=tuple(SUITES), default=tuple(SUITES))
    parser.add_argument("--minutes", type=float, help=f"for all; {GPU_MINUTES:g} on a GPU, {CPU_MINUTES:g} on a CPU")
    options = suite.parse(parser, arguments)
    if options.minutes is not None and not 0 < options.minutes < math.inf:
        parser.error(f"--minutes must be above 0; got {options.minutes:g}")
    out = options.out.resolve()
    start = time.monotonic()
    if "paper" in options.only and not options.tiny:
        draw_faces()  # not in the share of the suite that needs them
    on_gpu = torch.cuda.is_available()
    deadline = start + 60 * (options.minutes or (GPU_MINUTES if on_gpu else CPU_MINUTES))
    record.exit_on_sigterm()  # ends the suite that runs, too

    ops = {op: None for name in options.only for op in SUITES[name].needs}
    gate = check({op: gate_command(op, on_gpu=on_gpu) for op in ops}, GATES_SHARE * (deadline - time.monotonic()))
    merged = {
        "what": f"every suite on {record.machine()}",
        "command": record.command(),
        "machine": record.this_machine(),
        "seconds": 0.0,
        "gate": gate,
        "runs": {},
        "suites": {},
    }
    wrong = {op for op, result in gate["ops"].items() if not result["passed"]}
    chosen = [name for name in SUITES if name in options.only]
    left = [name for name in chosen if not _blocks(name, wrong)]
    failures = [f"the gate: {op}: {result['failed']}" for op, result in gate["ops"].items() if op in wrong]
    failures += [
        f"{name} was not timed, since it needs {' and '.join(_blocks(name, wrong))}"
        for name in chosen
        if name not in left
    ]
    with tempfile.TemporaryDirectory(prefix="fastvae-bench-") as folder:
        while left:
            name, *after = left
            share = SUITES[name].share / sum(SUITES[n].share for n in left)
            limit_s = max(share * (deadline - time.monotonic()), 0.0)
            left = after
            print(f"{name}: up to {limit_s:.0f} s", flush=True)
            path = Path(folder) / f"{name}.json"
            flags = _flags(name, options.tiny, wrong)
            run = run_for(suite_command(name, path, flags), limit_s)
            merged["runs"][name] = asdict(run)
            content = _read(path)
            if content is not None:
                # Without the temporary file of this run.
                merged["suites"][name] = content | {"command": shown_command(name, flags)}
                _take_pictures(path, out)
            if failure := _what_failed(run, content):
                failures.append(f"{name} {failure}")
            print(f"{name}: {run.seconds:.0f} s" + (", stopped" if run.exit_status is None else ""), flush=True)
            merged["seconds"] = round(time.monotonic() - start, 1)
            record.write_json(out, merged)
    merged["seconds"] = round(time.monotonic() - start, 1)
    record.write_json(out, merged)
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"{merged['seconds']:.0f} s on {record.machine()}; {out} written")
    return 1 if failures else 0


def draw_faces() -> None:
    """Draws what the paper's suite trains on into the cache: the first time that takes one core about 50 s."""
    print("the embedded faces: drawn now unless they are in the cache", flush=True)
    try:
        open_images(EMBEDDED, 64)
    except FastvaeError as error:  # the suite that needs them will say so itself
        print(f"the embedded faces: {error}", flush=True)


def gate_command(op: str, *, on_gpu: bool) -> list[str]:
    """An op's tests: on a GPU its kernels at real shapes, else those in the interpreter and those of ATen's form."""
    some = "odd_shapes or one_layer or several_steps or equals_reference"
    chosen = ["-m", "gpu"] if on_gpu else ["-m", "not gpu", "-k", some]
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/kernels").glob(f"test_{op}*.py"))
    return [sys.executable, "-m", "pytest", *files, "-q", "-p", "no:cacheprovider", *chosen]


def check(commands: dict[str, list[str]], limit_s: float) -> dict:
    """Runs the gate, all ops at once: on a GPU compiling takes longest, on one core for each.

    Args:
        commands: the tests of each op.
        limit_s: for all; what is not done by then has not passed.

    Returns:
        Whether all passed, the seconds, and by op whether it passed, which tests failed, and the last line of output.
    """
    print(f"gate: do the ops compute the right thing? Up to {limit_s:.0f} s", flush=True)
    start = time.monotonic()
    results = {}
    with tempfile.TemporaryDirectory(prefix="fastvae-gate-") as folder, contextlib.ExitStack() as ends:
        running = {}
        for op, command in commands.items():
            output = ends.enter_context((Path(folder) / op).open("w+"))
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
            ends.callback(_kill, process)
            running[op] = process, output
        while time.monotonic() - start < limit_s and any(process.poll() is None for process, _ in running.values()):
            time.sleep(0.1)
        for op, (process, output) in running.items():
            output.seek(0)
            results[op] = _result(process.poll(), output.read())
            print(f"gate: {op}: {results[op]['failed'] or 'passed'}", flush=True)
    seconds = round(time.monotonic() - start, 1)
    return {"passed": all(result["passed"] for result in results.values()), "seconds": seconds, "ops": results}


def _result(exit_status: int | None, output: str) -> dict:
    last = output.strip().splitlines()[-20:]
    if exit_status:
        print("\n".join(last))
    tests = re.findall(r"^(?:FAILED|ERROR) \S+?\.py(?:::(\S+))?", output, re.MULTILINE)
    failed = None
    if exit_status is None:
        failed = "not done when its time was over"
    elif exit_status:
        failed = ", ".join(test or "its tests cannot be read" for test in tests) or (last or ["no test ran"])[-1]
    return {"passed": exit_status == 0, "failed": failed, "summary": last[-1] if last else ""}


def _blocks(name: str, wrong: set[str]) -> list[str]:
    """The wrong ops that keep a suite from being timed."""
    needs = SUITES[name].needs
    blocking = [op for op in needs if op in wrong]
    return [] if SUITES[name].own_ops and len(blocking) < len(needs) else blocking


def suite_command(name: str, path: Path, flags: tuple[str, ...]) -> list[str]:
    """One suite's process."""
    return [sys.executable, "-m", "bench", name, *flags, "--out", str(path)]


def shown_command(name: str, flags: tuple[str, ...]) -> str:
    """The command line of the same suite alone."""
    return " ".join(["python -m bench", name, *flags])


def _flags(name: str, tiny: bool, wrong: set[str]) -> tuple[str, ...]:
    flags = ("--tiny",) if tiny else SUITES[name].flags
    if (own_ops := SUITES[name].own_ops) and wrong:
        flags += ("--op", *(own for op, own in own_ops.items() if op not in wrong))
    return flags


def run_for(command: list[str], limit_s: float) -> Run:
    """Runs a command for at most `limit_s` seconds: shortly before they are over it is asked to end."""
    start = time.monotonic()
    grace_s = min(GRACE_S, limit_s / 2)
    process = _started(command)
    stopped = False
    try:
        process.wait(limit_s - grace_s)
    except subprocess.TimeoutExpired:
        stopped = True
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        _kill(process)
    status = None if stopped else process.returncode
    return Run(round(time.monotonic() - start, 1), round(limit_s, 1), status)


def _started(command: list[str]) -> subprocess.Popen:
    # Its own group, so that the compiler's workers end with it.
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True)


def _kill(process: subprocess.Popen) -> None:
    """Ends a process and those that it started, if they still run."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _take_pictures(path: Path, out: Path) -> None:
    """step.png and step-parts.png become DATE-MACHINE-all-step.png and DATE-MACHINE-all-step-parts.png."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for picture in sorted(path.parent.glob(f"{path.stem}*.png")):
        (out.parent / f"{out.stem}-{picture.name}").write_bytes(picture.read_bytes())


def _what_failed(run: Run, content: dict | None) -> str | None:
    stopped = ", stopped when its time was over" if run.exit_status is None else ""
    if content is None:
        return f"left no record{stopped}"
    if not content.get("rows"):
        return f"measured nothing{stopped}"
    if run.exit_status:
        return f"ended with exit status {run.exit_status}; its record says why"
    return None
