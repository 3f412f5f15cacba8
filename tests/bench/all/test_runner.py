"""Whatever a stage does, the others run, the time is kept, and results are complete."""

import io
import json
import sys

import pytest

from bench.all import plan, results, runner
from bench.reporting.command_line import without_out
from bench.suites import SUITES
from fastvae.errors import FastvaeError
from tests.bench.all.stages import CRASHES, HANGS, IS_KILLED, OBEYS, RECORDED, TALKS, archived, smoke


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
    assert all_of.seconds < 9
    assert status == (1 if failure else 0) and len(record["failures"]) == (1 if failure else 0)
    assert not failure or record["failures"][0].startswith(failure)
    assert json.loads(archived(all_of.out / "all.tar.gz")["out/all.json"]) == record


def test_everything_hangs_and_the_time_is_kept(all_of):
    status, record = all_of(dict.fromkeys(plan.stages(), HANGS), "--minutes", "0.08")
    assert status == 1 and all_of.seconds < 0.08 * 60
    assert record["stages"]["gate"]["processes"]["conv_relu"]["exit_status"] is None
    assert record["gate"]["ops"]["conv_relu"]["why_not"] == "not done when its time was over, 0 passed by then"
    assert record["gate"]["passed"] is None
    assert any("are left for it" in stage.get("left_out", "") for stage in record["stages"].values())
    archived(all_of.out / "all.tar.gz")


def test_the_end_of_a_long_log_is_in_the_record(all_of):
    failing = "print('x' * 5_000_000); print('the reason'); raise SystemExit(1)"
    _, record = all_of({"step": failing}, "--only", "step", "--minutes", "1")
    assert record["stages"]["step"]["last_lines"]["step"][-1] == "the reason"
    assert len(json.dumps(record)) < 20_000


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


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "1e308"])
def test_minutes_that_make_no_sense(minutes, capsys):
    with pytest.raises(SystemExit, match="2"):
        runner.main(["--minutes", minutes])
    assert "--minutes must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--minutes", "0.05"], ["--only", "tune"]])
def test_a_run_that_measured_nothing_has_failed(all_of, flags):
    status, record = all_of({}, *flags, least_s=plan.LEAST_S)
    assert status == 1 and record["failures"][0].startswith("nothing was measured: ")


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
