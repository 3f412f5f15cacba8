"""All that can be measured here, within its minutes: `python -m bench all`.

Stages, one after the other: what this machine is; whether every op computes the right thing; on a GPU the fastest
tiles, which all that follows uses, and what they gain; the training step; a profile of it; then the other suites. Each
is a process of its own with a limit of its own, and none stops those after it, whatever it does. After each stage
all.json and all.tar.gz in the folder hold everything that is known by then. Stops by itself before its minutes are
over: 9 on a GPU, 40 on a CPU; nothing that it started outlives it, even if it is killed. Needs PyTorch, Triton, pytest
and matplotlib; nothing is installed or downloaded, and no setting of the GPU is changed.
"""

import argparse
import contextlib
import json
import math
import shlex
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.all import gate, plan, results
from bench.all.processes import ROOT, Ended, run_together
from bench.all.watchdog import watched
from bench.reporting.command_line import without_out
from bench.suites import SUITES
from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import check_writable
from fastvae.files.places import resolved

RECORDS = ROOT / "bench/records"
TILES = ROOT / "kernels/tiles.json"
GPU_MINUTES, CPU_MINUTES = plan.MINUTES, 40.0
# At the end, for the last archive, of at most a twentieth of the time.
_CLOSING_S = 5.0


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, 1 if a stage failed, 128 + the signal that ended it."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m bench all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--tiny", action="store_true", help="every stage tiny; the figures mean nothing")
    parser.add_argument(
        "--only", nargs="+", choices=plan.stages(), metavar="STAGE",
        help=f"of {', '.join(plan.stages())}; smoke runs always, and the gate for the ops that these need",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, help=f"for all; {GPU_MINUTES:g} on a GPU, {CPU_MINUTES:g} on a CPU")
    parser.add_argument("--out", type=Path, help="a new folder, bench/records/DATE-MACHINE-all unless given")
    options = parser.parse_args(arguments)
    if options.minutes is not None and not 0 < 60 * options.minutes < math.inf:
        parser.error(f"--minutes must be above 0 and finite; got {options.minutes:g}")
    if options.tiny and options.out is None:
        parser.error("--tiny needs --out FOLDER: its figures mean nothing and do not belong into bench/records")
    try:
        if options.out is not None:
            options.out = resolved(str(options.out))
            results.check_new(options.out)
        elif obstacle := _obstacle(RECORDS):
            options.out = _temporary()
            _say(f"{obstacle}; the results are in {options.out}")
    except FastvaeError as error:
        parser.error(str(error))
    with watched() as environment:
        return _Run(options, start, environment).all_stages(" ".join(["python -m bench all", *without_out(arguments)]))


class _Run:
    """One run: its time, its folder, and what is known so far."""

    def __init__(self, options: argparse.Namespace, start: float, environment: Mapping[str, str]):
        self._options, self._start = options, start
        self._folder = options.out or _temporary()
        self._total_s = 60 * (options.minutes or GPU_MINUTES)
        self._signal: int | None = None
        self._environment = dict(environment)
        self._asked = tuple(options.only or SUITES)
        wanted = set(options.only or plan.stages()) | {"smoke", "gate"}
        self._stages = [name for name in plan.stages() if name in wanted]
        needed = dict.fromkeys(op for name in options.only or () if name in SUITES for op in SUITES[name].needs)
        tests_all = options.only is None or "gate" in options.only
        self._setting = plan.Setting(self._folder, tiny=options.tiny, ops=None if tests_all else tuple(needed))
        self._content: dict[str, Any] = {}

    def all_stages(self, command: str) -> int:
        """Runs them; returns the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup makes it
                signal.signal(number, self._end)
        self._content = {
            "what": "", "command": command, "machine": None, "minutes": self._total_s / 60, "seconds": 0.0,
            "interrupted": None, "stages": {}, "failures": [], "suites": {},
        }  # fmt: skip
        while self._stages and self._signal is None:
            stage, *self._stages = self._stages
            try:
                self._stage(stage)
            except Exception as error:  # a full disk, or a result that is not what it should be
                self._content["failures"].append(f"{stage}: {type(error).__name__}: {error}")
                _say(traceback.format_exc())
            self._save()
        if self._signal is not None:
            self._content["interrupted"] = signal.Signals(self._signal).name
        if reason := self._why_nothing():
            self._content["failures"].append(f"nothing was measured: {reason}")
        if reason or self._content["interrupted"]:
            self._save()
        for failure in self._content["failures"]:
            _say(f"FAILED: {failure}")
        _say(f"{self._content['seconds']:.0f} s; {self._folder}: {results.RECORD} and {results.ARCHIVE} written")
        if self._signal is not None:
            return 128 + self._signal
        return 1 if self._content["failures"] else 0

    def _end(self, number: int, frame: object) -> None:
        self._signal = number

    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _stage(self, stage: str) -> None:
        left_s = self._total_s - min(_CLOSING_S, self._total_s / 20) - self._seconds()
        limit_s = plan.limit_s(
            stage, self._possible(self._stages), total_s=self._total_s, left_s=left_s, least_s=self._least_s()
        )
        if reason := self._why_not(stage, limit_s):
            _say(f"{self._seconds():4.0f} s  {stage}: left out: {reason}")
            self._content["stages"][stage] = {"left_out": reason}
            return
        _say(f"{self._seconds():4.0f} s  {stage}: up to {limit_s:.0f} s")
        if stage == "tune":
            shutil.copyfile(TILES, self._folder / "tiles.json")
        commands = plan.commands(stage, self._setting, limit_s)
        logs = {name: self._folder / "logs" / _log_name(stage, name) for name in commands}
        start = self._seconds()
        ended = run_together(
            commands, limit_s, logs, environment=self._environment, interrupted=lambda: self._signal is not None
        )
        seconds = round(self._seconds() - start, 1)
        failures = self._take(stage, ended, logs)
        self._content["failures"] += failures
        processes = {name: asdict(end) for name, end in ended.items()}
        last_lines = {name: results.last_lines(logs[name]) for name, end in ended.items() if end.exit_status != 0}
        self._content["stages"][stage] = {
            "seconds": seconds, "limit_s": round(limit_s, 1), "failures": failures, "processes": processes,
            "last_lines": last_lines,
        }  # fmt: skip
        how = "stopped, with what it had" if any(end.exit_status is None for end in ended.values()) else "done"
        _say(f"{self._seconds():4.0f} s  {stage}: {'; '.join(failures) or how}")

    def _possible(self, stages: list[str]) -> list[str]:
        """Those that this machine can run."""
        on_gpu = self._setting.on_gpu or "smoke" not in self._content["stages"]
        return [name for name in stages if on_gpu or name not in plan.NEED_A_GPU]

    def _why_not(self, stage: str, limit_s: float) -> str | None:
        if not self._possible([stage]):
            return "it needs a GPU"
        if stage == "gain" and "FASTVAE_TILES" not in self._environment:
            return "no tile is new"
        if stage == "gate" and self._setting.ops == ():
            return "nothing needs it"
        return f"{limit_s:.1f} s are left for it" if limit_s < self._least_s() else None

    def _least_s(self) -> float:
        return plan.LEAST_TINY_S if self._options.tiny else plan.LEAST_S

    def _why_nothing(self) -> str:
        """Why nothing that was asked for was run; empty if something was, or the run was interrupted."""
        asked = {name: stage.get("left_out") for name, stage in self._content["stages"].items() if name in self._asked}
        return "" if self._signal or None in asked.values() else "; ".join(f"{n}: {why}" for n, why in asked.items())

    def _take(self, stage: str, ended: dict[str, Ended], logs: dict[str, Path]) -> list[str]:
        """Keeps what a stage left; returns what failed."""
        if stage == "smoke":
            return self._take_smoke(ended[stage])
        if stage == "gate":
            self._content["gate"] = gate.result(ended, logs)
            return [
                f"gate: {name}: {of_op['why_not']}"
                for name, of_op in self._content["gate"]["ops"].items()
                if of_op["passed"] is False or (of_op["passed"] is None and not ended[name].interrupted)
            ]
        if stage == "tune":
            return self._take_tiles(ended[stage])
        if stage in ("gain", "profile"):
            path = self._folder / ("gain.json" if stage == "gain" else "profile/step.json")
            self._content[stage] = found = results.read(path)
            if "command" in (found or {}):
                found["command"] = " ".join(without_out(shlex.split(found["command"])))
            return [] if found else [f"{stage} left no result: {_how(ended[stage])}"]
        return self._take_suite(stage, ended[stage])

    def _take_smoke(self, ended: Ended) -> list[str]:
        smoke = results.read(self._folder / "smoke.json")
        known = smoke or {}
        on_gpu = known.get("on_gpu", shutil.which("nvidia-smi") is not None)
        self._setting = replace(self._setting, on_gpu=on_gpu)
        if self._options.minutes is None and not on_gpu:
            self._total_s = 60 * CPU_MINUTES
        self._content |= {
            "what": f"every suite on {known.get('name', 'a machine that did not say what it is')}",
            "machine": known.get("machine"),
            "minutes": self._total_s / 60,
            "smoke": smoke,
        }
        if self._options.out is None:
            self._move(_free(RECORDS / known.get("record", f"{time.strftime('%Y-%m-%d')}-unknown-all")))
        if "on_gpu" not in known:
            return [f"smoke: no answer: {_how(ended)}"]
        failures = [f"smoke: {name}: {failure}" for name, failure in smoke.get("failures", {}).items()]
        return failures or ([] if ended.exit_status == 0 else [f"smoke: {_how(ended)}"])

    def _move(self, folder: Path) -> None:
        """Into the folder that is named after the machine, which is not known before it is asked."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(shutil.move(self._folder, folder))
        except OSError as error:
            _say(f"{folder} cannot be written ({error.strerror or error}); the results are in {self._folder}")
            return
        self._folder.chmod(0o755)  # a temporary folder is for its owner alone
        self._setting = replace(self._setting, folder=self._folder)

    def _take_tiles(self, ended: Ended) -> list[str]:
        before, after = json.loads(TILES.read_text()), results.read(self._folder / "tiles.json") or {}
        fresh = {key: tile for key, tile in after.items() if key not in before or before[key] != tile}
        gone = [key for key in before if key not in after]
        self._content["tiles"] = {"fresh": fresh, "default_again": gone}
        if fresh or gone:
            self._environment["FASTVAE_TILES"] = str(self._folder / "tiles.json")
            self._setting = replace(self._setting, tiles=TILES)
        # Stopped when its time is over is its usual end.
        return [] if ended.exit_status in (0, None) else [f"tune: {_how(ended)}"]

    def _take_suite(self, suite: str, ended: Ended) -> list[str]:
        record = results.read(self._folder / f"{suite}.json")
        of_gate = self._content.get("gate", {})
        wrong = [op for op in SUITES[suite].needs if op in gate.failed_ops(of_gate)]
        unfinished = [op for op in SUITES[suite].needs if op in gate.unfinished_ops(of_gate)]
        failures = [f"{suite} needs {' and '.join(wrong)}: failed in the gate"] if wrong else []
        if record is None:
            return [*failures, f"{suite} left no record: {_how(ended)}"]
        flags = plan.suite_flags(suite, self._setting.tiny)
        command = shlex.join(["python", "-m", "bench", suite, *flags])
        self._content["suites"][suite] = record | {
            "command": command, "failed_gate": wrong, "unfinished_gate": unfinished,
        }  # fmt: skip
        if not record.get("rows"):
            failures.append(f"{suite} measured nothing: {_how(ended)}")
        elif ended.exit_status:
            failures.append(f"{suite}: {_how(ended)}; its record says why")
        return failures

    def _save(self) -> None:
        self._content["seconds"] = round(self._seconds(), 1)
        try:
            results.save(self._folder, self._content)
        except (FastvaeError, OSError) as error:  # the next stage may find room again
            _say(f"FAILED: nothing could be written: {error}")


def _how(ended: Ended) -> str:
    if ended.exit_status is None:
        return f"{'interrupted' if ended.interrupted else 'stopped'} after {ended.seconds:.0f} s"
    if ended.exit_status < 0:
        return f"killed by {signal.Signals(-ended.exit_status).name}"
    return f"exit status {ended.exit_status}"


def _log_name(stage: str, process: str) -> str:
    """An op or a file of the gate may be called as a suite is."""
    name = process.replace("/", "-of-").replace(" ", "-")
    return f"{name}.log" if process == stage else f"{stage}-{name}.log"


def _obstacle(records: Path) -> str | None:
    """Why there can be no new folder in this one."""
    try:
        check_writable(records / "folder" / results.RECORD, "no results can be kept in")
    except FastvaeError as error:
        return str(error)
    return None


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="fastvae-bench-"))


def _free(folder: Path) -> Path:
    """The folder, or the first of FOLDER-2, FOLDER-3, ... that does not exist: old records stay."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # whoever read it may be gone
        print(line, flush=True)
