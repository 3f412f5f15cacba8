"""Which stage gets which time."""

import sys
from pathlib import Path

import pytest

from bench.all import plan, processes, runner
from bench.suites import SUITES
from tests.bench.all.stages import ROOT


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
