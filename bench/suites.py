"""The one list of suites: what `python -m bench` runs, alone and with all others, and what is made of the records.

A suite that is added here is in the command, in `all`, in bench/records/README.md and, with a headline, in README.md
and its chart. It stands beside `__main__.py` because that module has another name while it runs.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from bench import tables
from bench.reporting.newest_records import SuiteRecord


@dataclass(frozen=True)
class Suite:
    """One suite of measurements.

    Attributes:
        module: with `main(arguments) -> exit status`; imported only when it runs.
        table: its part of bench/records/README.md.
        seconds: of the nine minutes of `python -m bench all`, more if others leave some (bench/all/plan.py).
        needs: ops that its numbers depend on, by the names of their tests. If a test of one of them fails, `python -m
            bench all` times the suite all the same and says so in its record, which then makes no table. It makes one
            if tests were not done in time: the suite has its own checks, too.
        flags: in a run of all suites.
        tiny_flags: in a tiny one.
        headline: ours against the best peer; None for a suite that has no peers.
    """

    module: str
    table: Callable[[SuiteRecord], str]
    seconds: float
    needs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    tiny_flags: tuple[str, ...] = ("--tiny",)
    headline: Callable[[SuiteRecord], tables.Headline | None] | None = None

    def main(self, arguments: list[str]) -> int:
        """Runs it; returns the exit status."""
        return importlib.import_module(self.module).main(arguments)


_STEPS_OPS = ("replicate_conv", "feature_loss", "critic_update", "conv_relu", "zero_padded_conv", "batch_norm")

SUITES = {
    "step": Suite("bench.step.bench_step", tables.step, seconds=130, needs=_STEPS_OPS, headline=tables.step_headline),
    "accelerate": Suite(
        "bench.inference.bench_accelerate",
        tables.accelerate,
        seconds=25,
        # The others are compiled or packaged, which takes a minute each however small they are.
        tiny_flags=("--tiny", "--batch", "1", "--contenders", "plain eager", "fastvae accelerate"),
        headline=tables.accelerate_headline,
    ),
    # It compiles for one batch only, which takes as long as measuring it: so its seconds are enough.
    "inference": Suite(
        "bench.inference.bench_inference",
        tables.inference,
        seconds=25,
        needs=("replicate_conv",),
        flags=("--compiled", "1"),
        headline=tables.inference_headline,
    ),
    "loader": Suite("bench.loader.bench_loader", tables.loader, seconds=20, headline=tables.loader_headline),
    "paper": Suite("bench.paper.bench_paper", tables.paper, seconds=60, needs=_STEPS_OPS),
    "kernels": Suite(
        "bench.kernels.bench_kernels",
        tables.kernels,
        seconds=25,
        needs=("replicate_conv", "feature_loss", "critic_update", "batch_norm"),
        headline=tables.kernels_headline,
    ),
    "lossnet": Suite(
        "bench.kernels.bench_lossnet",
        tables.lossnet,
        seconds=25,
        needs=("feature_loss", "conv_relu"),
        flags=("--fp8",),
        headline=tables.lossnet_headline,
    ),
    # A tenth of its calls; alone they take half an hour on two cores.
    "soak": Suite("bench.inference.bench_soak", tables.soak, seconds=20, flags=("--calls", "20000")),
}
