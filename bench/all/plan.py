"""The stages of `python -m bench all`: their order, their time, and what each runs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.all import gate
from bench.all.processes import grace_s
from bench.suites import SUITES

MINUTES = 9.0
# Seconds of nine minutes, as `Suite.seconds` are. Down to accelerate they leave 20 s for what passes between the stages
# and for the end, so that each stage has its own even if all before it use theirs. Those after it live on what others
# leave.
SECONDS = {"smoke": 30.0, "gate": 110.0, "tune": 70.0, "gain": 25.0, "profile": 45.0}
# Tuning comes before what is timed, since kernels are compiled for the table of tiles.
ORDER = (
    *("smoke", "gate", "tune", "gain", "step", "profile"),
    *("paper", "inference", "accelerate", "kernels", "lossnet", "loader", "soak"),
)
NEED_A_GPU = ("tune", "gain", "profile")
# Less than it takes to import torch, compile and measure something: a stage that could have less is left out.
LEAST_S, LEAST_TINY_S = 20.0, 4.0
TUNED_RECIPE = "celeba64"


@dataclass(frozen=True)
class Setting:
    """What the commands depend on.

    Attributes:
        folder: for results.
        on_gpu: whether there is a GPU.
        tiny: whether everything is scaled down.
        ops: that the gate tests; None for all.
        tiles: the table that the kernels come with.
    """

    folder: Path
    on_gpu: bool = False
    tiny: bool = False
    ops: tuple[str, ...] | None = None
    tiles: Path = Path()


def stages() -> tuple[str, ...]:
    """All of them, in the order in which they run."""
    return tuple(dict.fromkeys((*ORDER, *SUITES)))


def limit_s(stage: str, after: Sequence[str], *, total_s: float, left_s: float, least_s: float = LEAST_S) -> float:
    """What a stage may take at most: its own seconds, and its share of what the stages before it have left over.

    Args:
        stage: that is about to run.
        after: the stages that follow it.
        total_s: of the run.
        left_s: until its end.
        least_s: with less no stage measures anything; what would leave less to the next one goes to this one.
    """
    if left_s <= 0:
        return 0.0
    share = left_s * _seconds(stage) / sum(_seconds(name) for name in (stage, *after))
    own = _seconds(stage) * total_s / (60 * MINUTES)
    if stage == "smoke":  # importing torch takes as long in a short run as in a long one
        return min(max(own, _seconds(stage), least_s), max(left_s / 3, least_s), left_s)
    limit = max(share, own, least_s)
    return limit if left_s - limit >= least_s else left_s


def _seconds(stage: str) -> float:
    return SECONDS.get(stage) or SUITES[stage].seconds


def commands(stage: str, setting: Setting, limit_s: float) -> dict[str, list[str]]:
    """The processes of a stage by name; they run side by side."""
    folder, tiny = setting.folder, ["--tiny"] * setting.tiny
    if stage == "smoke":
        return {stage: _module("bench.all.smoke", folder / "smoke.json")}
    if stage == "gate":
        faces = {} if setting.tiny else {"faces": _module("bench.all.faces")}
        return gate.commands(setting.ops, on_gpu=setting.on_gpu, tiny=setting.tiny) | faces
    if stage == "tune":
        some = ["--op", "feature_loss"] if tiny else []
        minutes = f"{(limit_s - grace_s(limit_s)) / 60:.2f}"
        flags = ["--recipe", TUNED_RECIPE, "--budget-minutes", minutes, *some, "--out", folder / "tiles.json"]
        return {stage: _module("tools.tune", *flags)}
    if stage == "gain":
        flags = ["--recipe", TUNED_RECIPE, "--before", setting.tiles, "--after", folder / "tiles.json"]
        return {stage: _module("tools.tune.gain", *flags, "--out", folder / "gain.json")}
    if stage == "profile":
        return {stage: _module("bench.anatomy.profile_step", *tiny, "--out", folder / "profile")}
    return {stage: _module("bench", stage, *suite_flags(stage, setting.tiny), "--out", folder / f"{stage}.json")}


def suite_flags(suite: str, tiny: bool) -> tuple[str, ...]:
    """The flags of a suite in a run of all."""
    return SUITES[suite].tiny_flags if tiny else SUITES[suite].flags


def _module(name: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", name, *map(str, arguments)]
