"""What one table of tiles gains over another: python -m tools.tune.gain --before FILE --after FILE --out FILE.

Every call of the recipe whose entries differ is timed with both tables in turns. Which tiles compute the right thing is
the business of `python -m tools.tune`. The file is written after every call, so that a time limit (SIGTERM) or a crash
leaves those until then.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.kernels.cases import recipe_cases
from bench.measuring.clock import interleaved, quartiles
from bench.reporting import record
from bench.reporting.compact_json import write_json
from fastvae.recipes import RECIPES
from tools.tune.problems import OPS, Entries, Problem, Trial, gather

BEFORE, AFTER = "before", "after"
Clock = Callable[[dict[str, Callable[[], None]]], dict[str, list[float]]]


def gains(
    problems: list[Problem], before: Entries, after: Entries, device: str, clock: Clock
) -> Iterator[dict[str, Any]]:
    """Yields a row for each problem whose entry differs.

    Args:
        problems: as `gather` makes them.
        before: a table of tiles.
        after: another.
        device: of the operands.
        clock: seconds of the calls of each contender, taken in turns.
    """
    for problem in problems:
        if before.get(problem.key, "none") == after.get(problem.key, "none"):
            continue
        samples = clock(_contenders(problem, {BEFORE: before, AFTER: after}, device))
        if samples.keys() < {BEFORE, AFTER}:
            continue  # the clock has said why
        medians = {name: statistics.median(samples[name]) for name in (BEFORE, AFTER)}
        yield {
            "problem": problem.name,
            "before_us": round(1e6 * medians[BEFORE], 2),
            "after_us": round(1e6 * medians[AFTER], 2),
            "faster": round(medians[BEFORE] / medians[AFTER], 3),
            "quartiles_before_us": [round(1e6 * q, 2) for q in quartiles(samples[BEFORE])],
            "quartiles_after_us": [round(1e6 * q, 2) for q in quartiles(samples[AFTER])],
        }


def _contenders(problem: Problem, tables: dict[str, Entries], device: str) -> dict[str, Callable[[], None]]:
    operands = [call.operands(device) for call in problem.calls]

    def contender(table: Entries) -> Callable[[], None]:
        trial = Trial(table)

        @torch.no_grad()
        def call() -> None:
            with trial.in_use():
                for each, of_call in zip(problem.calls, operands, strict=True):
                    each.run(*of_call)

        return call

    return {name: contender(table) for name, table in tables.items()}


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="tools.tune.gain", description=__doc__)
    parser.add_argument("--recipe", nargs="+", choices=tuple(RECIPES), default=["celeba64"])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=50, help="calls of each; 50")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("tools.tune.gain needs a GPU: tiles are for Triton's kernels", file=sys.stderr)
        return 2
    record.exit_on_sigterm()
    before, after = (json.loads(path.read_text()) for path in (options.before, options.after))
    capability = torch.cuda.get_device_capability()
    recipes, dtypes = tuple(options.recipe), [torch.bfloat16 if capability >= (8, 0) else torch.float32]
    problems = gather(*recipe_cases(recipes), dtypes, OPS, capability)
    torch.backends.cudnn.benchmark = True  # ATen at its best, where a table says that it is faster
    clock = partial(interleaved, rounds=options.rounds, device="cuda")
    rows: list[dict[str, Any]] = []
    for row in gains(problems, before, after, "cuda", clock):
        print("{faster:6.3f} x  {before_us:9.2f} -> {after_us:9.2f} us  {problem}".format(**row))
        rows.append(row)
        _write(options.out, rows, complete=False)
    totals = _write(options.out, rows, complete=True)
    print(f"together {totals[BEFORE]} -> {totals[AFTER]} us; {options.out} written")
    return 0


def _write(path: Path, rows: list[dict[str, Any]], *, complete: bool) -> dict[str, float]:
    """Writes the rows so far; returns the sums of their times."""
    totals = {name: round(sum(row[f"{name}_us"] for row in rows), 2) for name in (BEFORE, AFTER)}
    what = f"two tables of tiles on {record.machine()}"
    write_json(path, {"what": what, "complete": complete, "total_us": totals, "rows": rows})
    return totals


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
