"""Time of one training step: `python -m bench step`.

Ours against the plain composition (bench/step/plain_step.py) as its own users would run it: in eager float32; with
channels_last, bfloat16 and fused Adam; and that under torch.compile, on a GPU with max-autotune and CUDA graphs. All
contenders are interleaved in one run. Before anything is timed ours and the plain step must have the same gradients,
the first step of every contender the same losses, and that of every one of ours must move all networks as our eager
float32 step does. Compile time is told apart. A time limit (SIGTERM) leaves what was measured by then.
"""

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from tqdm import tqdm

from bench.measuring import replay
from bench.measuring.clock import Contenders, quartiles, turns, warm_up
from bench.measuring.tuned import tuned
from bench.reporting import record
from bench.step.contenders import BASE, OURS, SEED, Contender, Settings, contenders, loss_network, reference, settings
from bench.step.gate import Weights, check_same_step, other_move, weights

# Losses of the first step, relative to float32's.
TOLERANCES = {"fp32": 1e-3, "bf16": 2e-2}
# Least cosine between the change of a network's weights in the first step and the eager float32 step's. On a CPU
# float32 compiled has 0.993 to 0.998 (batches of 8), bfloat16 0.71 to 0.86 (of 32); a change of no relation has 0.
LEAST_COSINES = {"fp32": 0.95, "bf16": 0.5}
# Of timing when the time limit comes before it: what asks us to end waits about 10 s until it kills.
LAST_S = 4.0


@dataclass(frozen=True)
class Row:
    """One contender's result.

    `first_call_s` includes compiling and capturing; `memory_mib` is what torch's allocator holds for it on a GPU.
    """

    contender: str
    what: str
    batch: int
    first_call_s: float
    median_s: float
    quartiles_s: tuple[float, float]
    images_per_s: float
    memory_mib: float | None
    samples_s: list[float]

    @property
    def is_ours(self) -> bool:
        """Whether it is fastvae's step."""
        return self.contender.startswith(OURS)


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if our step computes something else than the plain one or fails."""
    parser = argparse.ArgumentParser(
        prog="python -m bench step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, help="images a step; 64 on a GPU, 32 on a CPU")
    parser.add_argument("--width", type=int, help="of the networks; 32")
    parser.add_argument("--rounds", type=int, help="samples of each contender; 30 on a GPU, 8 on a CPU")
    parser.add_argument("--no-compiled", action="store_true", help="leave out what needs torch.compile")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes; the figures mean nothing")
    parser.add_argument(
        "--out", type=record.place, help="the record, bench/records/DATE-MACHINE-step.json unless given"
    )
    options = parser.parse_args(arguments)
    for name, least in (("batch", 2), ("width", 1), ("rounds", 1)):
        if (value := getattr(options, name)) is not None and value < least:
            parser.error(f"--{name} must be {least} or more; got {value}")
    record.exit_on_sigterm()
    default = settings(tiny=options.tiny)
    chosen = replace(
        default,
        batch=options.batch or default.batch,
        width=options.width or default.width,
        rounds=options.rounds or default.rounds,
        compiled=default.compiled and not options.no_compiled,
    )
    out = options.out or record.path_for("step")
    record.check_writable(out)
    notes: list[str] = (
        [] if chosen.device == "cuda" else ["no GPU: nothing was captured, and no Triton kernel was timed"]
    )
    rows: list[Row] = []
    status = 1
    try:
        failed = measure(chosen, notes.append, rows)
        print(table(rows))
        status = 1 if failed else 0
    except AssertionError as error:
        notes.append(f"WRONG, not timed: {error}")
    finally:  # whatever ends it, what is known stays
        what = f"one training step of the VAE-WGAN on {record.machine()}, interleaved"
        extra = {"settings": asdict(chosen)}
        record.write(out, what=what, rows=rows, notes=notes, extra=extra)
    for words in notes:
        print(f"note: {words}")
    print(f"{out} written")
    return status


def measure(chosen: Settings, note: Callable[[str], None], rows: list[Row]) -> list[str]:
    """Checks, then times.

    Args:
        chosen: what is run.
        note: told, in words, what is left out and why.
        rows: gets one for each contender that runs on this machine, whatever ends the run.

    Returns:
        Those of ours that could not be run; the others are timed all the same.

    Raises:
        AssertionError: our step computes something else than the plain one.
        SystemExit: as the time limit raised it. One that comes while a contender compiles costs the others nothing:
            those that are ready are timed for `LAST_S` first.
    """
    # One each, since ours draw their noise from the beginning of theirs.
    generator, of_pixels = (torch.Generator(chosen.device).manual_seed(SEED) for _ in range(2))
    shape = (chosen.batch, chosen.image_size, chosen.image_size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=chosen.device, generator=of_pixels)
    noise = torch.empty(chosen.batch, 100, device=chosen.device).normal_(generator=generator)
    check_same_step(loss_network(chosen.layers), pixels[:4], noise[:4])
    with tuned(chosen.device):
        taking_part = contenders(chosen, note)
        calls, facts, failed, stopped = _first_calls(chosen, taking_part, pixels, noise, note)
        if skips := counters["inductor"]["cudagraph_skips"]:
            note(f"torch.compile ran {skips} of the compiled peer's graphs without a CUDA graph")
        samples = {name: [] for name in calls}
        limit = time.monotonic() + (LAST_S if stopped else float("inf"))
        try:
            for seconds in islice(turns(calls, chosen.device), chosen.rounds if calls else 0):
                for name, value in seconds.items():
                    samples[name].append(value / chosen.steps_per_sample)
                if time.monotonic() > limit:
                    break
        finally:
            rows += [
                _row(chosen, name, taking_part[name], facts[name], taken) for name, taken in samples.items() if taken
            ]
    if stopped:
        raise stopped
    return failed


def _first_calls(
    chosen: Settings, taking_part: dict[str, Contender], pixels: Tensor, noise: Tensor, note: Callable[[str], None]
) -> tuple[Contenders, dict[str, "_Facts"], list[str], SystemExit | None]:
    """The contenders that are ready and right, what their first steps told, ours that failed, and what stopped it."""
    calls, facts, failed = {}, {}, []
    names = list(taking_part)
    name = names[0]
    try:
        right = _right_weights(chosen, pixels, noise)
        for name in tqdm(names, desc="first calls", file=sys.stderr, disable=None):
            contender = taking_part[name]
            try:
                call, found = _ready(chosen, contender, pixels, noise)
            except Exception as error:  # one that cannot run here must not cost the others their numbers
                if name.startswith(OURS):
                    failed.append(name)
                said = " ".join(str(error).strip().splitlines()[:1])
                note(f"{'FAILED' if name in failed else 'left out'}: {name}: {type(error).__name__}: {said}")
                continue
            if wrong := _difference(found, facts.get(BASE, found), right, contender.precision):
                if name.startswith(OURS):
                    raise AssertionError(f"{name}: {wrong}")
                note(f"left out: {name} is wrong: {wrong}")
                continue
            calls[name], facts[name] = call, found
    except SystemExit as error:
        left_out = ", ".join(names[names.index(name) :])
        note(f"left out, since the time was over before they were ready: {left_out}")
        return calls, facts, failed, error
    return calls, facts, failed, None


def _right_weights(chosen: Settings, pixels: Tensor, noise: Tensor) -> Weights:
    built = reference(chosen).build(pixels, noise)
    built.call()
    return weights(built.networks)


def _row(chosen: Settings, name: str, contender: Contender, facts: "_Facts", samples_s: list[float]) -> Row:
    low, median, high = quartiles(samples_s)
    return Row(
        contender=name,
        what=contender.what,
        batch=chosen.batch,
        first_call_s=round(facts.first_call_s, 2),
        median_s=round(median, 7),
        quartiles_s=(round(low, 7), round(high, 7)),
        images_per_s=round(chosen.batch / median, 2),
        memory_mib=facts.memory_mib,
        samples_s=[round(value, 7) for value in samples_s],
    )


class _Facts(NamedTuple):
    """Of a first step; `moved` are our networks' weights before and after it."""

    first_call_s: float
    losses: dict[str, float]
    moved: tuple[Weights, Weights] | None
    memory_mib: float | None


def _ready(chosen: Settings, contender: Contender, pixels: Tensor, noise: Tensor) -> tuple[Callable[[], None], _Facts]:
    """The contender compiled and captured: a call of `steps_per_sample` steps, and what its first steps told."""
    on_gpu = chosen.device == "cuda"

    def reserved_mib() -> float:
        gc.collect()  # what others left must not be freed in between
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved() / 2**20

    before = reserved_mib() if on_gpu else 0.0
    call, losses, networks = contender.build(pixels, noise)
    old = weights(networks) if networks else None
    start = time.perf_counter()
    call()
    first_losses = losses()  # waits for the step
    first_call_s = time.perf_counter() - start
    moved = (old, weights(networks)) if networks else None
    memory = None
    if on_gpu:
        for _ in range(2):  # torch.compile's CUDA graphs are recorded and first replayed here
            call()
        reserved_mib()  # frees what searching for the fastest kernels took
        for _ in range(2):
            call()
        torch.cuda.synchronize()
        memory = round(torch.cuda.memory_reserved() / 2**20 - before, 1)

    def sample() -> None:
        for _ in range(chosen.steps_per_sample):
            call()

    warm_up(sample)
    return sample, _Facts(first_call_s, first_losses, moved, memory)


def _difference(facts: _Facts, base: _Facts, right: Weights, precision: str) -> str | None:
    """What is wrong with a first step, in words; the critic's loss is a difference that may cancel."""
    tolerance = TOLERANCES[precision]
    for name in ("kl", "rec"):
        found, expected = facts.losses[name], base.losses[name]
        if not abs(found - expected) / abs(expected) <= tolerance:
            return f"{name} of the first step is {found:.6g}, expected {expected:.6g} to {tolerance:g}"
    return other_move(*facts.moved, right, LEAST_COSINES[precision]) if facts.moved else None


def table(rows: list[Row]) -> str:
    """For people: a line for each contender, speeds as multiples of the eager float32 step's and of the best peer's."""
    base = next((row.median_s for row in rows if row.contender == BASE), math.nan)
    best = min((row.median_s for row in rows if not row.is_ours), default=math.nan)
    lines = []
    for row in rows:
        low, high = (1e3 * value for value in row.quartiles_s)
        memory = "" if row.memory_mib is None else f"  {row.memory_mib:6.0f} MiB"
        lines.append(
            f"{row.contender:<32} {1e3 * row.median_s:9.3f} ms ({low:.3f} to {high:.3f})"
            f"  {row.images_per_s:9.1f} images/s  {base / row.median_s:6.2f} x eager fp32"
            f"  {best / row.median_s:5.2f} x best peer  first call {row.first_call_s:.1f} s{memory}"
        )
    return "\n".join(lines)


@pytest.fixture(scope="module")
def rows(tiny) -> dict[str, Row]:
    """One interleaved run of all contenders."""
    found: list[Row] = []
    measure(settings(tiny=tiny), print, found)
    return {row.contender: row for row in found}


def pytest_generate_tests(metafunc) -> None:
    """A test for each contender of this machine."""
    if "contender" in metafunc.fixturenames:
        chosen = settings(tiny=metafunc.config.getoption("--tiny"))
        metafunc.parametrize("contender", contenders(chosen, lambda words: None))


@pytest.mark.benchmark(group="one training step")
def test_step(benchmark, rows, contender):
    if contender not in rows:
        pytest.skip("left out, as said above")
    replay.hand_over(benchmark, rows[contender].samples_s)


def test_ours_is_as_fast_as_any_peer(rows, tiny):
    if tiny:
        pytest.skip("too small to tell")
    ours, peer = (
        min((r for r in rows.values() if r.is_ours == own), key=lambda r: r.median_s) for own in (True, False)
    )
    assert ours.quartiles_s[0] <= peer.quartiles_s[1], f"{ours.contender} against {peer.contender}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
