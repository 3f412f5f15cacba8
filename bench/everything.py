"""All suites, one after the other: `python -m bench all`.

First each op must compute the right thing; one that does not costs the suites that need it their numbers, no others.
Then every suite runs in a process of its own, with a share of the time that is left. One that is not done by then is
stopped, and what it had measured is kept. Writes one record, after every suite anew, and beside it the suites'
pictures. Within 9 minutes on a GPU.
"""

import argparse
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

from bench.reporting import record
from fastvae.data.dataset import EMBEDDED, open_images
from fastvae.errors import FastvaeError

ROOT = Path(__file__).parents[1]

# Ops that a suite's numbers hang on: they are the gate, each by its own tests. `kernels` times every op for itself, by
# the names that follow, so that one that is wrong is merely left out there.
NEEDS = {
    "step": ("replicate_conv", "feature_loss", "critic_update", "conv_relu"),
    "paper": ("replicate_conv", "feature_loss", "critic_update", "conv_relu"),
    "inference": ("replicate_conv",),
    "loader": (),
    "lossnet": ("feature_loss", "conv_relu"),
    "kernels": ("replicate_conv", "feature_loss", "critic_update"),
}
KERNELS = {"replicate_conv": "replicate_conv2d", "feature_loss": "feature_loss", "critic_update": "critic_update"}
# Of all the time, at most; what the gate leaves over goes to the suites.
GATES_SHARE = 0.3
# Seconds of a run of 9 minutes on a GPU, of which the gate takes the rest; what one leaves over goes to those after it.
# The step is first because it compiles what the paper's run needs, too, and the compiler's results are cached; what the
# paper's run compiles for itself, the step's parts, comes last there.
SHARES = {"step": 180, "paper": 115, "inference": 70, "loader": 35, "lossnet": 30, "kernels": 30}
# Inference compiles for one batch only, which takes as long as measuring it: so a share is enough.
FLAGS = {"inference": ("--compiled", "1"), "lossnet": ("--fp8",)}
GPU_MINUTES, CPU_MINUTES = 9.0, 40.0
# From being asked to end until the record is written.
GRACE_S = 10.0


@dataclass(frozen=True)
class Run:
    """How a suite's process ended. `exit_status` is None if it was stopped because its time was over."""

    seconds: float
    limit_s: float
    exit_status: int | None


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if the gate or a suite failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench all", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=tuple(SHARES), default=tuple(SHARES))
    parser.add_argument("--minutes", type=float, help=f"for all; {GPU_MINUTES:g} on a GPU, {CPU_MINUTES:g} on a CPU")
    parser.add_argument("--tiny", action="store_true", help="every suite tiny; the figures mean nothing")
    parser.add_argument("--out", type=record.place, help="the record, bench/records/DATE-MACHINE-all.json unless given")
    options = parser.parse_args(arguments)
    if options.minutes is not None and not 0 < options.minutes < math.inf:
        parser.error(f"--minutes must be above 0; got {options.minutes:g}")
    out = (options.out or record.path_for("all")).resolve()
    record.check_writable(out)
    start = time.monotonic()
    if "paper" in options.only and not options.tiny:
        draw_faces()  # not in the share of the suite that needs them
    on_gpu = torch.cuda.is_available()
    deadline = start + 60 * (options.minutes or (GPU_MINUTES if on_gpu else CPU_MINUTES))
    record.exit_on_sigterm()  # ends the suite that runs, too

    ops = {op: None for name in options.only for op in NEEDS[name]}
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
    wrong = {op for op, found in gate["ops"].items() if not found["passed"]}
    chosen = [name for name in SHARES if name in options.only]
    left = [name for name in chosen if not _blocks(name, wrong)]
    failed = [f"the gate: {op}: {found['failed']}" for op, found in gate["ops"].items() if op in wrong]
    failed += [
        f"{name} was not timed, since it needs {' and '.join(_blocks(name, wrong))}"
        for name in chosen
        if name not in left
    ]
    with tempfile.TemporaryDirectory(prefix="fastvae-bench-") as folder:
        while left:
            name, *after = left
            share = SHARES[name] / sum(SHARES[n] for n in left)
            limit_s = max(share * (deadline - time.monotonic()), 0.0)
            left = after
            print(f"{name}: up to {limit_s:.0f} s", flush=True)
            path = Path(folder) / f"{name}.json"
            flags = _flags(name, options.tiny, wrong)
            run = run_for(suite_command(name, path, flags), limit_s)
            merged["runs"][name] = asdict(run)
            found = _read(path)
            if found is not None:
                # Without the temporary file of this run.
                merged["suites"][name] = found | {"command": shown_command(name, flags)}
                _take_pictures(path, out)
            if words := _what_failed(run, found):
                failed.append(f"{name} {words}")
            print(f"{name}: {run.seconds:.0f} s" + (", stopped" if run.exit_status is None else ""), flush=True)
            merged["seconds"] = round(time.monotonic() - start, 1)
            record.write_json(out, merged)
    merged["seconds"] = round(time.monotonic() - start, 1)
    record.write_json(out, merged)
    for words in failed:
        print(f"FAILED: {words}")
    print(f"{merged['seconds']:.0f} s on {record.machine()}; {out} written")
    return 1 if failed else 0


def draw_faces() -> None:
    """What the paper's suite trains on, into the cache: at its first use that takes a core about 50 s."""
    print("the embedded faces: drawn now unless they were before", flush=True)
    try:
        open_images(EMBEDDED, 64)
    except FastvaeError as error:  # costs one suite its numbers, which will say so itself
        print(f"the embedded faces: {error}", flush=True)


def gate_command(op: str, *, on_gpu: bool) -> list[str]:
    """An op's tests: on a GPU its kernels at real shapes, else in Triton's interpreter, and what runs in ATen."""
    some = "odd_shapes or one_layer or several_steps or equals_reference"
    chosen = ["-m", "gpu"] if on_gpu else ["-m", "not gpu", "-k", some]
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/kernels").glob(f"test_{op}*.py"))
    return [sys.executable, "-m", "pytest", *files, "-q", "-p", "no:cacheprovider", *chosen]


def check(commands: dict[str, list[str]], limit_s: float) -> dict:
    """Runs the gate, all ops at once: most of a GPU's minutes go into compiling, on one core for each.

    Args:
        commands: the tests of each op.
        limit_s: for all; what is not done by then has not passed.

    Returns:
        Whether all passed, the seconds, and by op whether it passed, what failed in words, and its last line.
    """
    print(f"gate: do the ops compute the right thing? Up to {limit_s:.0f} s", flush=True)
    start = time.monotonic()
    found = {}
    with tempfile.TemporaryDirectory(prefix="fastvae-gate-") as folder, contextlib.ExitStack() as ends:
        running = {}
        for op, command in commands.items():
            said = ends.enter_context((Path(folder) / op).open("w+"))
            process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, start_new_session=True)
            ends.callback(_kill, process)
            running[op] = process, said
        while time.monotonic() - start < limit_s and any(process.poll() is None for process, _ in running.values()):
            time.sleep(0.1)
        for op, (process, said) in running.items():
            said.seek(0)
            found[op] = _verdict(process.poll(), said.read())
            print(f"gate: {op}: {found[op]['failed'] or 'passed'}", flush=True)
    seconds = round(time.monotonic() - start, 1)
    return {"passed": all(verdict["passed"] for verdict in found.values()), "seconds": seconds, "ops": found}


def _verdict(exit_status: int | None, said: str) -> dict:
    last = said.strip().splitlines()[-20:]
    if exit_status:
        print("\n".join(last))
    tests = re.findall(r"^(?:FAILED|ERROR) \S+?\.py(?:::(\S+))?", said, re.MULTILINE)
    failed = None
    if exit_status is None:
        failed = "it was not done when its time was over"
    elif exit_status:
        failed = ", ".join(test or "its tests cannot be read" for test in tests) or (last or ["no test ran"])[-1]
    return {"passed": exit_status == 0, "failed": failed, "summary": last[-1] if last else ""}


def _blocks(name: str, wrong: set[str]) -> list[str]:
    """The wrong ops that keep a suite from being timed."""
    needed = [op for op in NEEDS[name] if op in wrong]
    return [] if name == "kernels" and len(needed) < len(NEEDS[name]) else needed


def suite_command(name: str, path: Path, flags: tuple[str, ...]) -> list[str]:
    """One suite's process."""
    return [sys.executable, "-m", "bench", name, *flags, "--out", str(path)]


def shown_command(name: str, flags: tuple[str, ...]) -> str:
    """What one types for the same suite alone."""
    return " ".join(["python -m bench", name, *flags])


def _flags(name: str, tiny: bool, wrong: set[str]) -> tuple[str, ...]:
    flags = ("--tiny",) if tiny else FLAGS.get(name, ())
    if name == "kernels" and wrong:
        flags += ("--op", *(KERNELS[op] for op in NEEDS[name] if op not in wrong))
    return flags


def run_for(command: list[str], limit_s: float) -> Run:
    """Runs a command for at most so many seconds: it is asked to end before they are over, and killed then."""
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
    """Ends what is left of a process and of those that it started."""
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


def _what_failed(run: Run, found: dict | None) -> str | None:
    stopped = ", stopped when its time was over" if run.exit_status is None else ""
    if found is None:
        return f"left no record{stopped}"
    if not found.get("rows"):
        return f"measured nothing{stopped}"
    if run.exit_status:
        return f"ended with exit status {run.exit_status}; its record says why"
    return None
