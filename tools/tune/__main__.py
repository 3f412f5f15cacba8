"""Fills kernels/tiles.json with the fastest tiles of this GPU, for the calls that the recipes make.

    python -m tools.tune [--recipe celeba64 ...] [--dtype bfloat16 ...] [--op feature_loss ...] [--budget-minutes M]

A tile must first compute what torch does: its error against float64 is at most twice that of ATen. Then all of them are
timed in turns, the best, the default and ATen once more for longer. The best is written if it beats the default by more
than the noise, null if ATen beats both by more than that, and nothing if the default is as good.

The file is written after every entry, so an interruption loses only the one in progress.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch

from bench.kernels.cases import recipe_cases
from bench.kernels.resources import variant_of
from bench.measuring.clock import Contenders, Samples, interleaved
from fastvae.errors import suggest
from fastvae.files.atomic_write import write_atomically
from fastvae.kernels import dispatch, tiles
from fastvae.progress_bar import tqdm
from fastvae.recipes import RECIPES
from tools.tune.problems import OPS, Entries, Problem, gather
from tools.tune.search import Machine, Say, Search


def tune(problems: list[Problem], machine: Machine, out: Path, *, budget_s: float = math.inf, say: Say = print) -> int:
    """Tunes the problems in order, and writes the chosen tiles after each.

    Args:
        problems: as `gather` makes them.
        machine: where they are tried.
        out: the file of entries; those of other keys stay.
        budget_s: no problem is begun later than this.
        say: called with messages about results and refused tiles.

    Returns:
        How many candidates computed something wrong or could not be compiled.
    """
    wrong, start = 0, time.monotonic()
    with tqdm(problems, desc="tune", file=sys.stderr, disable=None) as bar:
        for done, problem in enumerate(bar):
            if time.monotonic() - start > budget_s:
                say(f"out of time: {len(problems) - done} of {len(problems)} entries left, from {problem.name} on")
                break
            bar.set_description(problem.name)
            search = Search(problem, machine, say)
            chosen = search.run()
            wrong += search.wrong
            write(out, problem.key, chosen)
    return wrong


def write(out: Path, key: str, chosen: Entries) -> None:
    """Replaces the entry of this key by the chosen one, if there is one; one entry a line, sorted."""
    kept = json.loads(out.read_text()) if out.exists() else {}
    entries = {k: v for k, v in kept.items() if k != key} | chosen
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(entries.items()))
    write_atomically(out, f"{{\n{lines}\n}}\n" if lines else "{}\n")


def compile_ahead(calls: list[Callable[[], object]]) -> None:
    """Compiles what these calls would start, on all processors at once; the calls then find it in Triton's cache."""
    launches = {}

    def note(kernel, grid, args, options):
        launches.setdefault(variant_of(kernel, args, options), (kernel, grid, args, options))

    def compiled(launch):
        kernel, grid, args, options = launch
        with suppress(Exception):  # met again where the tile is checked
            kernel.warmup(*args, grid=grid, **options)

    with dispatch.force("triton", launch=note):
        for call in calls:
            call()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compiled, launches.values()))


def known(names: Iterable[str]) -> Callable[[str], str]:
    """An argument's type: one of these names, or an error that suggests the nearest."""

    def checked(name: str) -> str:
        if name not in names:
            raise argparse.ArgumentTypeError(f"unknown name {name!r}{suggest(name, names)}")
        return name

    return checked


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, or 1 if a tile was refused, 2 if nothing can be tuned here."""
    parser = argparse.ArgumentParser(
        prog="tools.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ops = ("replicate_conv2d", *OPS)
    parser.add_argument("--recipe", nargs="+", type=known(RECIPES), default=list(RECIPES), metavar="NAME")
    parser.add_argument(
        "--dtype", nargs="+", type=known(("bfloat16", "float16", "float32")), metavar="NAME",
        help="what training computes in on this GPU, unless given; optimisers work in float32 always",
    )  # fmt: skip
    parser.add_argument("--op", nargs="+", type=known(ops), default=list(ops), metavar="NAME", help=", ".join(ops))
    parser.add_argument("--budget-minutes", type=float, default=math.inf, help="no entry is begun later than this")
    parser.add_argument("--out", type=Path, default=tiles.PATH)
    options = parser.parse_args(arguments)

    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
    if capability < (7, 0):
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
        print(
            f"tools.tune needs a GPU of compute capability 7.0 or later; torch sees {device}",
            file=sys.stderr,
        )
        return 2
    recipes = tuple(options.recipe)
    dtypes = [getattr(torch, d) for d in options.dtype or (["bfloat16"] if capability >= (8, 0) else ["float32"])]
    chosen_ops = tuple(op for op in OPS if op in options.op or op.partition(".")[0] in options.op)
    problems = gather(*recipe_cases(recipes), dtypes, chosen_ops, capability)

    def clock(contenders: Contenders, rounds: int) -> Samples:
        return interleaved(contenders, rounds=rounds, device="cuda", note=tqdm.write)

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # ATen at its best
    machine = Machine("cuda", capability, clock, compile_ahead)
    try:
        wrong = tune(problems, machine, options.out, budget_s=60 * options.budget_minutes, say=tqdm.write)
    except KeyboardInterrupt:
        print(f"interrupted; what was measured is in {options.out}", file=sys.stderr)
        return 130
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
