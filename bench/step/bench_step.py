"""Time of one training step: `python -m bench step`.

Ours against the plain composition (bench/step/plain_step.py) as its own users would run it: in eager float32; with
channels_last, bfloat16 and fused Adam; and that under torch.compile, on a GPU with max-autotune and CUDA graphs. All
contenders are interleaved in one run. Before anything is timed ours and the plain step must have the same gradients,
the first step of every contender the same losses, and that of every one of ours must move all networks as our eager
float32 step does. Compile time is reported separately. A contender that fails, at whichever call, or is wrong costs the
others nothing; if all that follow fail with it, as after an error that leaves CUDA unusable, those that ran before have
the times of their last calls to warm up. A time limit (SIGTERM) leaves what was measured by then, and so does a crash,
but for the last few seconds.
"""

import gc
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from statistics import median
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from bench.measuring import replay
from bench.measuring.clock import turns
from bench.measuring.ours import OURS, is_ours
from bench.measuring.row import Row
from bench.reporting import record, suite
from bench.step.contenders import BASE, SEED, Contender, Settings, contenders, loss_network, reference, settings
from bench.step.gate import Weights, check_same_step, update_mismatch, weights
from fastvae.progress_bar import tqdm

# Losses of the first step, relative to float32's.
TOLERANCES = {"fp32": 1e-3, "bf16": 2e-2}
# Least cosine between the change of a network's weights in the first step and the eager float32 step's. On a CPU
# float32 compiled has 0.993 to 0.998 (batches of 8), bfloat16 0.71 to 0.86 (of 32); a change of no relation has 0.
LEAST_COSINES = {"fp32": 0.95, "bf16": 0.5}
# Seconds of timing after a time limit that comes before it: `bench all` kills a suite 10 s after asking it to end.
LAST_S = 4.0
# Seconds of rounds that a crash may cost.
_KEEP_S = 5.0
_WARMUPS = 3


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if our step computes something else than the plain one or fails."""
    parser = suite.parser("step", __doc__)
    parser.add_argument("--batch", type=int, help="images a step; 64 on a GPU, 32 on a CPU")
    parser.add_argument("--width", type=int, help="of the networks; 32")
    parser.add_argument("--rounds", type=int, help="samples of each contender; 30 on a GPU, 8 on a CPU")
    parser.add_argument("--no-compiled", action="store_true", help="leave out what needs torch.compile")
    options = suite.parse(parser, arguments, batch=2, width=1, rounds=1)
    default = settings(tiny=options.tiny)
    chosen = replace(
        default,
        batch=options.batch or default.batch,
        width=options.width or default.width,
        rounds=options.rounds or default.rounds,
        compiled=default.compiled and not options.no_compiled,
    )
    what = f"one training step of the VAE-WGAN on {record.machine()}, interleaved"
    report = suite.Report(what, extra={"settings": asdict(chosen)})
    if chosen.device == "cpu":
        report.note("no GPU: nothing was captured, and no Triton kernel was timed")

    def measure_all() -> None:
        measure(chosen, report)
        print(table(report.rows))

    return suite.run(report, options, measure_all)


def measure(chosen: Settings, report: suite.Report) -> None:
    """Checks, then times.

    Args:
        chosen: what is run.
        report: gets a row for each contender that runs on this machine, even if interrupted, and a failure for each
            of ours that does not run or is wrong; the others are timed all the same. It is kept in between.

    Raises:
        AssertionError: our gradients are not the plain step's.
        SystemExit: as the time limit raised it. If it comes while a contender compiles, those that are ready are timed
            for `LAST_S` first.
    """
    # One each, since ours draw their noise from the beginning of theirs.
    generator, of_pixels = (torch.Generator(chosen.device).manual_seed(SEED) for _ in range(2))
    shape = (chosen.batch, chosen.image_size, chosen.image_size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=chosen.device, generator=of_pixels)
    noise = torch.empty(chosen.batch, 100, device=chosen.device).normal_(generator=generator)
    check_same_step(loss_network(chosen.layers), pixels[:4], noise[:4])
    made = contenders(chosen, report.note)
    first_steps: dict[str, _FirstStep] = {}
    samples: dict[str, list[float]] = {name: [] for name in made}

    def keep(every_s: float = 0.0) -> None:
        report.rows[:] = [
            _row(chosen, name, made[name], first_step, samples[name] or first_step.warm_up_s)
            for name, first_step in first_steps.items()
        ]
        report.keep(every_s)

    stopped = _first_calls(chosen, made, pixels, noise, report, first_steps, keep)
    if skips := counters["inductor"]["cudagraph_skips"]:
        report.note(f"torch.compile ran {skips} of the compiled peer's graphs without a CUDA graph")
    calls = {name: first_step.call for name, first_step in first_steps.items()}
    limit = time.monotonic() + (LAST_S if stopped else float("inf"))
    try:
        for seconds in islice(turns(calls, chosen.device, report.left_out), chosen.rounds):
            for name, value in seconds.items():
                samples[name].append(value)
            keep(_KEEP_S)
            if time.monotonic() > limit:
                break
    finally:
        for name in first_steps:
            if not samples[name]:
                report.note(f"{name} is timed by its calls to warm up, not in turns: it had none")
        keep()
    if stopped:
        raise stopped


def _first_calls(
    chosen: Settings,
    made: dict[str, Contender],
    pixels: Tensor,
    noise: Tensor,
    report: suite.Report,
    first_steps: dict[str, "_FirstStep"],
    keep: Callable[[], None],
) -> SystemExit | None:
    """Fills in what is known of the contenders that are ready and right.

    Losses are compared with the base's, or with our eager float32 step's if the base does not run.

    Returns:
        The time limit, if it came.
    """
    names = list(made)
    name = names[0]
    try:
        try:
            right, losses = _right_step(chosen, pixels, noise)
        except Exception as error:
            report.left_out(f"{OURS} eager fp32, which all of ours are compared with", error)
            names, right, losses = [name for name in names if not is_ours(name)], {}, None
        for name in tqdm(names, desc="first calls", file=sys.stderr, disable=None):
            contender = made[name]
            try:
                first_step = _ready(chosen, contender, pixels, noise)
                if name == BASE:  # its gradients are ours, and its losses need only be numbers
                    losses = first_step.losses
                elif losses is None:
                    raise RuntimeError(
                        "neither the base nor our eager step ran, so there is nothing to compare it with"
                    )
                wrong = _difference(first_step, losses, right, contender.precision)
            except Exception as error:  # one that cannot run here must not stop the others
                report.left_out(name, error)
                continue
            if wrong:
                report.wrong(name, wrong)
                continue
            first_steps[name] = first_step
            keep()
    except SystemExit as error:
        left_out = ", ".join(other for other in names[names.index(name) :] if other not in first_steps)
        report.note(f"left out, since the time was over before they were ready: {left_out}")
        return error
    return None


def _right_step(chosen: Settings, pixels: Tensor, noise: Tensor) -> tuple[Weights, dict[str, float]]:
    """The weights after our eager float32 step, and its losses."""
    built = reference(chosen).build(pixels, noise)
    built.call()
    return weights(built.networks), built.losses()


def _row(chosen: Settings, name: str, contender: Contender, first_step: "_FirstStep", taken_s: Sequence[float]) -> Row:
    samples_s = [seconds / chosen.steps_per_sample for seconds in taken_s]
    details = {
        "what": contender.what,
        "first_call_s": round(first_step.seconds, 2),
        "images_per_s": round(chosen.batch / median(samples_s), 2),
        "memory_mib": first_step.memory_mib,
    }
    return Row.from_seconds(name, samples_s, "s", job={"batch": chosen.batch}, details=details)


class _FirstStep(NamedTuple):
    """What is known of a contender after its first step.

    Attributes:
        call: it takes `steps_per_sample` steps.
        seconds: of the first step, with compiling and capturing.
        losses: by name.
        moved: our networks' weights before and after it; None for a peer.
        memory_mib: what torch's allocator holds for the contender on a GPU; None on a CPU.
        warm_up_s: seconds of each sample that it takes to warm up, after the first step.
    """

    call: Callable[[], None]
    seconds: float
    losses: dict[str, float]
    moved: tuple[Weights, Weights] | None
    memory_mib: float | None
    warm_up_s: list[float]


def _ready(chosen: Settings, contender: Contender, pixels: Tensor, noise: Tensor) -> _FirstStep:
    """The contender compiled and captured."""
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

    def fail(_, error: Exception) -> None:
        raise error

    warm_up_s = [seconds[""] for seconds in islice(turns({"": sample}, chosen.device, fail), _WARMUPS)]
    return _FirstStep(sample, first_call_s, first_losses, moved, memory, warm_up_s)


def _difference(first_step: _FirstStep, right_losses: dict[str, float], right: Weights, precision: str) -> str | None:
    """What is wrong with a first step; None if nothing. The critic's loss is a difference that may cancel."""
    tolerance = TOLERANCES[precision]
    for name in ("kl", "rec"):
        loss, expected = first_step.losses[name], right_losses[name]
        if not abs(loss - expected) / abs(expected) <= tolerance:
            return f"{name} of the first step is {loss:.6g}, expected {expected:.6g} to {tolerance:g}"
    return update_mismatch(*first_step.moved, right, LEAST_COSINES[precision]) if first_step.moved else None


def table(rows: Sequence[Row]) -> str:
    """Human-readable, speeds as multiples of the eager float32 step's and of the best peer's."""
    base = next((row.median for row in rows if row.contender == BASE), math.nan)
    best = min((row.median for row in rows if not row.is_ours), default=math.nan)
    lines = []
    for row in rows:
        low, high = (1e3 * value for value in row.quartiles)
        memory = "" if row.details["memory_mib"] is None else f"  {row.details['memory_mib']:6.0f} MiB"
        lines.append(
            f"{row.contender:<32} {1e3 * row.median:9.3f} ms ({low:.3f} to {high:.3f})"
            f"  {row.details['images_per_s']:9.1f} images/s  {base / row.median:6.2f} x eager fp32"
            f"  {best / row.median:5.2f} x best peer  first call {row.details['first_call_s']:.1f} s{memory}"
        )
    return "\n".join(lines)


@pytest.fixture(scope="module")
def rows(tiny) -> dict[str, Row]:
    """One interleaved run of all contenders."""
    report = suite.Report("one training step")
    measure(settings(tiny=tiny), report)
    assert not report.failures
    return {row.contender: row for row in report.rows}


def pytest_generate_tests(metafunc) -> None:
    """A test for each contender of this machine."""
    if "contender" in metafunc.fixturenames:
        chosen = settings(tiny=metafunc.config.getoption("--tiny"))
        metafunc.parametrize("contender", contenders(chosen, lambda message: None))


@pytest.mark.benchmark(group="one training step")
def test_step(benchmark, rows, contender):
    if contender not in rows:
        pytest.skip("left out; the output above says why")
    replay.hand_over(benchmark, rows[contender].samples)


def test_ours_is_as_fast_as_any_peer(rows, tiny):
    if tiny:
        pytest.skip("too small to tell")
    ours, peer = (min((r for r in rows.values() if r.is_ours == own), key=lambda r: r.median) for own in (True, False))
    assert ours.quartiles[0] <= peer.quartiles[1], f"{ours.contender} against {peer.contender}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
