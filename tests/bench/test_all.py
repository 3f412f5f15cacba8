"""`python -m bench all`: whatever a stage does, the others run, the time is kept, and results are complete."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.all import gate, plan, processes, results, runner
from bench.all import smoke as smoke_stage
from bench.reporting.command_line import without_out
from bench.reporting.record import RECORDS
from bench.suites import SUITES
from fastvae.errors import FastvaeError
from fastvae.kernels import dispatch
from tests import conftest

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")

ROOT = Path(__file__).parents[2]
# What a busy machine may add between two looks at the clock.
LATE_S = 3.0
# Python programs that stages run in place of measurements; sys.argv[1] is the file for the record.
RECORDED = "import json, sys; json.dump({'rows': [1]}, open(sys.argv[1], 'w'))"
HANGS = f"""
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{RECORDED}
print("alive", flush=True)
time.sleep(3600)
"""
OBEYS = f"""
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    print("alive", flush=True)
    time.sleep(3600)
finally:
    {RECORDED}
"""
CRASHES = "import sys; print('why'); sys.exit(3)"
IS_KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
TALKS = f"{RECORDED}; print('x' * 5_000_000)"
LEAVES_CHILDREN = """
import subprocess
for own_session in (False, True):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=own_session)
    print(child.pid, flush=True)
"""
LEAVES_CHILDREN = f"import sys\n{LEAVES_CHILDREN}\n{RECORDED}"


def smoke(on_gpu: bool = False) -> str:
    answer = {"on_gpu": on_gpu, "name": "a trial", "record": "2026-01-01-trial-all", "machine": {"gpu": None}}
    return f"import json, sys; json.dump({answer | {'failures': {}}}, open(sys.argv[1], 'w'))"


@pytest.fixture
def all_of(monkeypatch, tmp_path):
    """Runs these programs as stages, others as programs that leave a record; returns status and all.json."""
    out = tmp_path / "out"

    def run(programs: dict[str, str], *flags: str, grace_s: float = 0.3, least_s: float = 0.2) -> tuple[int, dict]:
        monkeypatch.setattr(plan, "commands", commands(programs))
        monkeypatch.setattr(processes, "GRACE_S", grace_s)
        monkeypatch.setattr(plan, "LEAST_S", least_s)
        run.out, start = out, time.monotonic()
        status = runner.main(["--out", str(out), *flags])
        run.seconds = time.monotonic() - start
        return status, json.loads((out / "all.json").read_text())

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def commands(programs: dict[str, str]):
    made = {"smoke": smoke(), "gate": "print('1 passed')"} | programs

    def of_stage(stage, setting, limit_s):
        program = made.get(stage, RECORDED)
        names = ("conv_relu", "replicate_conv 1/2") if stage == "gate" else (stage,)
        return {name: [sys.executable, "-c", program, str(setting.folder / f"{stage}.json")] for name in names}

    return of_stage


def archived(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


def is_running(pid: int) -> bool:
    """A zombie does not run: whoever adopted it reads its status when it likes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_every_suite_is_in_the_record_and_everything_in_the_archive(all_of):
    status, record = all_of({}, "--minutes", "9")
    assert status == 0 and record["failures"] == [] and set(record["suites"]) == set(SUITES)
    of_step = {"command": "python -m bench step", "failed_gate": [], "unfinished_gate": []}
    assert record["suites"]["step"] == {"rows": [1], **of_step} and record["interrupted"] is None
    assert record["suites"]["inference"]["command"] == "python -m bench inference --compiled 1"
    assert record["stages"]["tune"] == {"left_out": "it needs a GPU"}
    assert record["gate"]["passed"] and set(record["gate"]["ops"]) == {"conv_relu", "replicate_conv 1/2"}
    files = archived(all_of.out / "all.tar.gz")
    assert json.loads(files["out/all.json"]) == record
    assert {"out/step.json", "out/logs/step.log", "out/logs/gate-replicate_conv-1-of-2.log"} <= files.keys()
    assert b"1 passed" in files["out/logs/gate-conv_relu.log"]


@pytest.mark.parametrize(
    ("program", "kept", "failure"),
    [
        (HANGS, True, None),
        (OBEYS, True, None),
        (CRASHES, False, "kernels left no record: exit status 3"),
        (f"{RECORDED}; sys.exit(1)", True, "kernels: exit status 1; its record says why"),
        (IS_KILLED, False, "kernels left no record: killed by SIGKILL"),
        ("import sys; open(sys.argv[1], 'w').write('{')", False, "kernels left no record: exit status 0"),
        (RECORDED.replace(": [1]", ": []"), False, "kernels measured nothing: exit status 0"),
        (TALKS, True, None),
    ],
    ids=["hangs", "obeys", "crashes", "fails", "is_killed", "half_a_record", "no_rows", "talks"],
)
def test_nothing_stops_what_follows(all_of, program, kept, failure):
    status, record = all_of({"kernels": program}, "--minutes", "0.15", "--only", "kernels", "lossnet")
    assert bool(record["suites"].get("kernels", {}).get("rows")) == kept and record["suites"]["lossnet"]["rows"] == [1]
    assert all_of.seconds < 9 + LATE_S
    assert status == (1 if failure else 0) and len(record["failures"]) == (1 if failure else 0)
    assert not failure or record["failures"][0].startswith(failure)
    assert json.loads(archived(all_of.out / "all.tar.gz")["out/all.json"]) == record


def test_everything_hangs_and_the_time_is_kept(all_of):
    status, record = all_of(dict.fromkeys(plan.stages(), HANGS), "--minutes", "0.08", grace_s=0.2)
    assert status == 1 and all_of.seconds < 0.08 * 60 + LATE_S
    assert record["stages"]["gate"]["processes"]["conv_relu"]["exit_status"] is None
    assert record["gate"]["ops"]["conv_relu"]["why_not"] == "not done when its time was over, 0 passed by then"
    assert record["gate"]["passed"] is None
    assert any("are left for it" in stage.get("left_out", "") for stage in record["stages"].values())
    archived(all_of.out / "all.tar.gz")


def test_what_a_stage_started_ends_with_it(all_of):
    all_of({"step": LEAVES_CHILDREN}, "--only", "step", "--minutes", "1")
    children = [int(line) for line in (all_of.out / "logs/step.log").read_text().split()]
    assert len(children) == 2 and not any(is_running(pid) for pid in children)


def test_the_end_of_a_long_log_is_in_the_record(all_of):
    failing = "print('x' * 5_000_000); print('the reason'); raise SystemExit(1)"
    _, record = all_of({"step": failing}, "--only", "step", "--minutes", "1")
    assert record["stages"]["step"]["last_lines"]["step"][-1] == "the reason"
    assert len(json.dumps(record)) < 20_000


def test_a_stage_that_cannot_be_started(all_of, monkeypatch):
    made = commands({})
    all_of({}, "--only", "loader", "--minutes", "1")
    monkeypatch.setattr(plan, "commands", lambda stage, *rest: made(stage, *rest) | {"x": ["/nowhere/python"]})
    logs = {"a": all_of.out / "logs/a.log", "b": all_of.out / "logs/b.log"}
    ended = processes.run_together({"a": ["/nowhere/python"], "b": [sys.executable, "-c", ""]}, 60, logs)
    assert (ended["a"].exit_status, ended["b"].exit_status) == (127, 0)
    assert "could not be started" in logs["a"].read_text()


def start_alone(tmp_path, programs: dict[str, str]) -> subprocess.Popen:
    """The runner in a process of its own, with these programs."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.bench import test_all
from bench.all import plan, runner
plan.commands = test_all.commands({programs!r})
sys.exit(runner.main(["--out", {str(tmp_path / "out")!r}, "--minutes", "9"]))
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"no {text!r} in {path}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_request_to_end_ends_the_stage_and_keeps_its_results(tmp_path, number):
    process = start_alone(tmp_path, {"step": OBEYS})
    wait_for(tmp_path / "out/logs/step.log", "alive")
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    record = json.loads((tmp_path / "out/all.json").read_text())
    assert record["interrupted"] == number.name and record["failures"] == []
    assert record["suites"]["step"]["rows"] == [1] and "soak" not in record["stages"]
    assert json.loads(archived(tmp_path / "out/all.tar.gz")["out/all.json"]) == record


def test_a_gate_that_is_interrupted_has_not_failed(tmp_path):
    process = start_alone(tmp_path, {"gate": OBEYS})
    wait_for(tmp_path / "out/logs/gate-conv_relu.log", "alive")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGINT
    record = json.loads((tmp_path / "out/all.json").read_text())
    assert record["interrupted"] == "SIGINT" and record["failures"] == [] and record["gate"]["passed"] is None
    assert record["gate"]["ops"]["conv_relu"]["why_not"] == "interrupted, 0 passed by then"


def test_a_killed_runner_leaves_what_was_complete_and_nothing_running(tmp_path):
    says_who = "import os\n" + LEAVES_CHILDREN + "\nprint(os.getpid(), flush=True)\nimport time; time.sleep(3600)"
    process = start_alone(tmp_path, {"step": says_who})
    log = tmp_path / "out/logs/step.log"
    wait_for(log, "\n")
    while len(log.read_text().split("\n")) < 4:
        time.sleep(0.05)
    process.kill()
    process.wait()
    record = json.loads((tmp_path / "out/all.json").read_text())
    assert set(record["stages"]) == {"smoke", "gate", "tune", "gain"} and record["gate"]["passed"]
    files = archived(tmp_path / "out/all.tar.gz")
    assert json.loads(files["out/all.json"]) == record and "out/smoke.json" in files
    deadline = time.monotonic() + 60
    while any(is_running(int(pid)) for pid in log.read_text().split()):
        assert time.monotonic() < deadline, "a stage outlives its run"
        time.sleep(0.05)


def test_suites_whose_op_fails_are_timed_and_marked(all_of):
    fails = "print('tests/kernels/test_conv_relu.py::test_a[1-2] FAILED [ 50%]'); raise SystemExit(1)"
    status, record = all_of({"gate": fails}, "--only", "lossnet", "soak", "--minutes", "1")
    assert status == 1 and record["gate"]["ops"]["conv_relu"]["why_not"] == "test_a[1-2]"
    assert record["suites"]["lossnet"]["failed_gate"] == ["conv_relu"] and record["suites"]["lossnet"]["rows"] == [1]
    assert record["suites"]["soak"]["failed_gate"] == []
    assert "lossnet needs conv_relu: failed in the gate" in record["failures"]


def test_an_op_that_was_not_tested_in_time_has_not_failed(all_of):
    _, record = all_of({"gate": HANGS}, "--only", "lossnet", "--minutes", "0.05")
    assert record["suites"]["lossnet"]["failed_gate"] == []
    assert record["suites"]["lossnet"]["unfinished_gate"] == ["conv_relu"]
    assert "gate: conv_relu: not done when its time was over, 0 passed by then" in record["failures"]


TUNES = "import json, sys; json.dump({'fresh': {'BLOCK': 64}}, open(sys.argv[1].replace('tune.', 'tiles.'), 'w'))"
USES_TILES = "import json, os, sys; json.dump({'rows': [os.environ.get('FASTVAE_TILES')]}, open(sys.argv[1], 'w'))"


def test_fresh_tiles_are_measured_and_used_from_then_on(all_of):
    programs = {"smoke": smoke(on_gpu=True), "tune": TUNES, "step": USES_TILES}
    programs["profile"] = "import json, pathlib, sys; p = pathlib.Path(sys.argv[1]).parent / 'profile'; p.mkdir(); " \
        "json.dump({'rows': [1]}, open(p / 'step.json', 'w'))"  # fmt: skip
    status, record = all_of(programs, "--minutes", "9")
    assert status == 0 and record["tiles"]["fresh"] == {"fresh": {"BLOCK": 64}}
    assert record["gain"] == record["profile"] == {"rows": [1]}
    assert record["suites"]["step"]["rows"] == ["FOLDER/tiles.json"]


def test_without_fresh_tiles_the_table_stays(all_of):
    programs = {"smoke": smoke(on_gpu=True), "tune": CRASHES, "step": USES_TILES}
    _, record = all_of(programs, "--minutes", "9")
    assert record["suites"]["step"]["rows"] == [None] and record["stages"]["gain"] == {"left_out": "no tile is new"}
    assert "tune: exit status 3" in record["failures"]


@pytest.mark.parametrize("answer", ["raise SystemExit(1)", "import time; time.sleep(3600)", RECORDED])
def test_a_machine_that_does_not_say_what_it_is(all_of, answer):
    status, record = all_of({"smoke": answer}, "--only", "soak", "--minutes", "0.1")
    assert status == 1 and record["failures"][0].startswith("smoke: ")
    assert record["suites"]["soak"]["rows"] == [1]


def test_a_result_that_nobody_expects_stops_nothing(all_of):
    status, record = all_of({"gain": "", "kernels": RECORDED.replace("{", "[{").replace("}", "}]")}, "--minutes", "9")
    assert status == 1 and record["failures"] == ["kernels left no record: exit status 0"]


def test_the_folder_is_named_after_the_machine_and_old_ones_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "commands", commands({}))
    monkeypatch.setattr(runner, "RECORDS", tmp_path / "records")
    for _ in range(2):
        assert runner.main(["--only", "soak", "--minutes", "1"]) == 0
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == [
        "2026-01-01-trial-all",
        "2026-01-01-trial-all-2",
    ]
    assert {"all.json", "all.tar.gz", "soak.json", "logs"} <= {
        path.name for path in (tmp_path / "records/2026-01-01-trial-all").iterdir()
    }


def test_a_folder_with_something_in_it_is_refused(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        runner.main(["--out", str(tmp_path)])
    assert "expected a new or empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "1e308"])
def test_minutes_that_make_no_sense(minutes, capsys):
    with pytest.raises(SystemExit, match="2"):
        runner.main(["--minutes", minutes])
    assert "--minutes must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--minutes", "0.05"], ["--only", "tune"]])
def test_a_run_that_measured_nothing_has_failed(all_of, flags):
    status, record = all_of({}, *flags, least_s=plan.LEAST_S)
    assert status == 1 and record["failures"][0].startswith("nothing was measured: ")


def test_tiny_figures_do_not_come_into_the_records(capsys):
    with pytest.raises(SystemExit, match="2"):
        runner.main(["--tiny"])
    assert "--tiny needs --out" in capsys.readouterr().err


def test_records_that_cannot_be_written_into(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(plan, "commands", commands({}))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for records, message in ((tmp_path / "file/records", "no results can be kept in"), (tmp_path, "cannot be written")):
        monkeypatch.setattr(runner, "RECORDS", records)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "move", refuse)
            assert runner.main(["--only", "soak", "--minutes", "1"]) == 0
        said = capsys.readouterr().out
        folder = Path(re.search(rf"{message}.*; the results are in (\S+)", said)[1])
        record = json.loads((folder / "all.json").read_text())
        assert record["suites"]["soak"]["rows"] == [1] and "failures" in record["stages"]["smoke"]


def refuse(*arguments):
    raise OSError(30, "Read-only file system")


def test_no_folder_of_this_machine_is_in_the_record(all_of):
    program = "print(sys.argv[1], sys.prefix); raise SystemExit(1)"
    profile = "import json, os, sys; os.mkdir(sys.argv[1][:-5]); json.dump({'command': 'python -m bench.x --out ' + " \
        "sys.argv[1]}, open(sys.argv[1][:-5] + '/step.json', 'w'))"  # fmt: skip
    programs = {"soak": f"import sys; {program}", "profile": profile, "smoke": smoke(on_gpu=True)}
    _, record = all_of(programs, "--minutes", "9")
    assert record["profile"]["command"] == "python -m bench.x"
    lines = record["stages"]["soak"]["last_lines"]["soak"]
    assert lines == ["FOLDER/soak.json PYTHON"]
    assert str(all_of.out) not in json.dumps(record)
    assert record["command"] == "python -m bench all --minutes 9"
    assert without_out(["step", "--out", "/a/b", "--tiny", "--out=/a/c"]) == ["step", "--tiny"]


def limits(stages: tuple[str, ...], used: dict[str, float], total_s: float = 540.0, lost_s: float = 0.0) -> dict:
    """By stage; what is not `used` is its whole limit, and `lost_s` pass after each."""
    left, given = total_s, {}
    for number, stage in enumerate(stages):
        given[stage] = plan.limit_s(stage, stages[number + 1 :], total_s=total_s, left_s=left)
        left -= min(used.get(stage, 1e6), given[stage]) + lost_s
    return given


def test_who_gets_which_time():
    everything = limits(plan.stages(), {}, lost_s=1.5)
    assert [everything[name] for name in ("smoke", "gate", "tune", "step")] == [30, 110, 70, 130]
    assert sum(everything.values()) <= 540
    assert limits(("smoke", "step"), {"smoke": 10}, 180.0)["step"] == 170
    assert limits(plan.stages(), {}, 60.0)["smoke"] == 20.0
    assert limits(plan.stages(), {}, 5400.0)["step"] >= 1300.0


USED = {
    "all of it": {},
    "a quick smoke": {"smoke": 9},
    "some": {"smoke": 20, "gate": 0.7 * 110, "step": 0.8 * 130, "profile": 0.6 * 45},
    "little": {"smoke": 10, "gate": 60, "tune": 60, "gain": 5, "step": 100, "profile": 30, "paper": 50},
}


@pytest.mark.parametrize("used", USED.values(), ids=USED.keys())
def test_nine_minutes_are_enough_for_what_matters(used):
    given = limits(plan.stages(), used, 535.0, lost_s=1.0)
    assert given["paper"] >= 59.0 and min(given["inference"], given["accelerate"]) >= 24.0
    # What is left goes to one suite rather than that each has too little to measure anything.
    assert all(limit >= plan.LEAST_S or limit <= 0 for limit in given.values()), given


@pytest.mark.parametrize("seconds", [20.0, 40.0, 60.0, 100.0, 200.0])
def test_in_a_short_run_some_stages_have_enough_time(seconds):
    given = limits(plan.stages(), {}, seconds)
    assert sum(given.values()) == pytest.approx(seconds)
    assert all(limit >= plan.LEAST_S or limit <= 0 for limit in given.values()), given


def test_a_process_is_asked_to_end_shortly_before_the_end():
    assert [processes.grace_s(limit) for limit in (5, 20, 50, 200)] == [1, 4, 10, 10]
    tune = plan.commands("tune", plan.Setting(Path(), on_gpu=True), 20.0)["tune"]
    assert float(tune[tune.index("--budget-minutes") + 1]) == pytest.approx(16 / 60, abs=0.01)


def test_the_plan_names_real_suites_and_files(tmp_path):
    assert set(plan.ORDER) == plan.SECONDS.keys() | SUITES.keys()
    setting = plan.Setting(tmp_path, on_gpu=True, tiles=runner.TILES)
    for stage in plan.stages():
        for command in plan.commands(stage, setting, 100.0).values():
            module = command[2]
            assert command[:2] == [sys.executable, "-m"]
            path = ROOT / module.replace(".", "/")
            assert module == "pytest" or path.with_suffix(".py").exists() or (path / "__main__.py").exists()


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


# Tests with the mark `gpu` that the gate leaves out, and why.
NOT_IN_THE_GATE = {
    **dict.fromkeys(("tests/train/test_trainer.py", "tests/train/test_systems.py"), "read checkpoints by safetensors"),
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
    command = gate.commands(["conv_relu"], on_gpu=False, tiny=True)["conv_relu"]
    logs = {"conv_relu": tmp_path / "log"}
    passed = gate.result(processes.run_together({"conv_relu": command}, 300, logs), logs)
    assert passed["passed"] and " passed" in passed["ops"]["conv_relu"]["summary"]


def test_parts_of_a_file_are_all_of_it():
    def kept(part: str) -> list[int]:
        options = {"--slow": True, "--part": part}
        hook = SimpleNamespace(pytest_deselected=lambda items: None)
        items = list(range(10))
        conftest.pytest_collection_modifyitems(SimpleNamespace(getoption=options.get, hook=hook), items)
        return items

    assert [kept(f"{part}/3") for part in (1, 2, 3)] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]


def test_half_a_file_and_a_huge_one_do_not_spoil_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "_MAX_BYTES", 1000)
    (tmp_path / "trace.json").write_text("x" * 2000)
    (tmp_path / ".fastvae-0123456789abcdef.part.json").write_text("half")
    (tmp_path / "step.txt").write_text("table")
    content = {"a": 1}
    for _ in range(2):
        results.save(tmp_path, content)
    assert content["not_in_archive"] == ["trace.json"]
    assert {name.partition("/")[2] for name in archived(tmp_path / "all.tar.gz")} == {"all.json", "step.txt"}


def test_results_that_cannot_be_written_do_not_stop_the_run(all_of, monkeypatch, capsys):
    def full(*arguments):
        raise FastvaeError("no room left")

    monkeypatch.setattr(results, "save", full)
    with pytest.raises(FileNotFoundError):
        all_of({}, "--only", "soak", "--minutes", "1")
    assert "FAILED: nothing could be written: no room left" in capsys.readouterr().out


def test_a_reader_that_is_gone_does_not_stop_the_run(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    runner._say("a line")


def test_the_default_place_is_read_for_the_tables():
    assert runner.RECORDS == RECORDS


def test_no_more_run_at_a_time_than_there_are_processors(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_processors", lambda: 1)
    alone = f"import os; path = {str(tmp_path / 'busy')!r}; os.mkdir(path); os.rmdir(path)"
    made = {name: [sys.executable, "-c", alone] for name in "abc"} | {"d": [sys.executable, "-c", HANGS, "/dev/null"]}
    made["e"] = made["a"]
    logs = {name: tmp_path / f"{name}.log" for name in made}
    ended = processes.run_together(made, 4.0, logs)
    assert [ended[name].exit_status for name in made] == [0, 0, 0, None, None]
    assert not logs["e"].exists() and gate.result(ended, logs)["ops"]["e"]["why_not"].startswith("not done")


def test_what_cannot_die_is_waited_for_once(tmp_path, monkeypatch):
    waits = []

    def cannot_die(process, timeout):
        waits.append(timeout)
        time.sleep(timeout)
        raise subprocess.TimeoutExpired("it", timeout)

    def hangs(*arguments):
        time.sleep(3600)

    monkeypatch.setattr(processes, "_processors", lambda: 4)
    monkeypatch.setattr(processes, "_DYING_S", 0.5)
    monkeypatch.setattr(processes, "send", hangs)  # as the environment of such a process may hang
    made = {name: [sys.executable, "-c", "import time; time.sleep(3600)"] for name in "abcd"}
    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "wait", cannot_die)
        ended = processes.run_together(made, 0.5, {name: tmp_path / name for name in made})
    assert len(waits) == 4 and sum(waits) <= 0.5 and {end.exit_status for end in ended.values()} == {None}


def test_smoke_says_which_implementation_runs_each_op():
    said = {name.partition(" ")[0] for name in smoke_stage._providers()}
    assert said == dispatch.OLDEST.keys()
