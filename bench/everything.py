"""All suites, one after the other: `python -m bench all`.

First the ops must compute the right thing; then every suite runs in a process of its own, with a share of the time that
is left. One that is not done by then is stopped, and what it had measured is kept. Writes one record, after every suite
anew, and beside it the suites' pictures. Within 9 minutes on a GPU.
"""

import argparse
import contextlib
import json
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

from bench import record
from fastvae.data.dataset import EMBEDDED, open_images
from fastvae.errors import FastvaeError

ROOT = Path(__file__).parents[1]

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
    if options.minutes is not None and options.minutes <= 0:
        parser.error(f"--minutes must be above 0; got {options.minutes:g}")
    out = (options.out or record.path_for("all")).resolve()
    record.check_writable(out)
    start = time.monotonic()
    if "paper" in options.only and not options.tiny:
        draw_faces()  # not in the share of the suite that needs them
    on_gpu = torch.cuda.is_available()
    deadline = start + 60 * (options.minutes or (GPU_MINUTES if on_gpu else CPU_MINUTES))
    record.exit_on_sigterm()  # ends the suite that runs, too

    gate = check(gate_command(on_gpu=on_gpu), deadline)
    merged = {
        "what": f"every suite on {record.machine()}",
        "command": record.command(),
        "machine": record.this_machine(),
        "seconds": 0.0,
        "gate": gate,
        "runs": {},
        "suites": {},
    }
    failed = [] if gate["passed"] else [f"the gate: {gate['failed']}; nothing was timed"]
    left = [name for name in SHARES if name in options.only and gate["passed"]]
    with tempfile.TemporaryDirectory(prefix="fastvae-bench-") as folder:
        while left:
            name, *after = left
            share = SHARES[name] / sum(SHARES[n] for n in left)
            limit_s = max(share * (deadline - time.monotonic()), 0.0)
            left = after
            print(f"{name}: up to {limit_s:.0f} s", flush=True)
            path = Path(folder) / f"{name}.json"
            run = run_for(suite_command(name, path, tiny=options.tiny), limit_s)
            merged["runs"][name] = asdict(run)
            found = _read(path)
            if found is not None:
                # Without the temporary file of this run.
                merged["suites"][name] = found | {"command": shown_command(name, tiny=options.tiny)}
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


def gate_command(*, on_gpu: bool) -> list[str]:
    """Tests of the ops: on a GPU the kernels at real shapes, else in Triton's interpreter, and what runs in ATen."""
    chosen = ["-m", "gpu"] if on_gpu else ["-m", "not gpu", "-k", "odd_shapes or one_layer or several_steps"]
    return [sys.executable, "-m", "pytest", "tests/kernels", "-q", "-x", "-p", "no:cacheprovider", *chosen]


def check(command: list[str], deadline: float) -> dict:
    """Runs the gate.

    Returns:
        Whether it passed, what failed in words, its seconds and the end of what it said.
    """
    print("gate: do the ops compute the right thing?", flush=True)
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(deadline - time.monotonic(), 0.1)
        )
        said, passed = done.stdout + done.stderr, done.returncode == 0
    except subprocess.TimeoutExpired:
        said, passed = "it was not done when all the time was over", False
    failed = re.findall(r"^(?:FAILED|ERROR) (?:\S+/test_)?(\w+?)(?:_triton)?\.py(\S*)", said, re.MULTILINE)
    last = said.strip().splitlines()[-20:]
    if not passed:
        print("\n".join(last))
    print(f"gate: {'passed' if passed else 'FAILED'}, {time.monotonic() - start:.0f} s", flush=True)
    return {
        "passed": passed,
        "failed": ", ".join(f"{op} ({test.strip(':')})" for op, test in failed) or (None if passed else last[-1]),
        "seconds": round(time.monotonic() - start, 1),
        "summary": last[-1] if last else "",
    }


def suite_command(name: str, path: Path, *, tiny: bool) -> list[str]:
    """One suite's process."""
    return [sys.executable, "-m", "bench", name, *_flags(name, tiny), "--out", str(path)]


def shown_command(name: str, *, tiny: bool) -> str:
    """What one types for the same suite alone."""
    return " ".join(["python -m bench", name, *_flags(name, tiny)])


def _flags(name: str, tiny: bool) -> tuple[str, ...]:
    return ("--tiny",) if tiny else FLAGS.get(name, ())


def run_for(command: list[str], limit_s: float) -> Run:
    """Runs a command for at most so many seconds: it is asked to end before they are over, and killed then."""
    start = time.monotonic()
    grace_s = min(GRACE_S, limit_s / 2)
    # Its own group, so that the compiler's workers end with it.
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
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
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    status = None if stopped else process.returncode
    return Run(round(time.monotonic() - start, 1), round(limit_s, 1), status)


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
