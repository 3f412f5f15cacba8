"""Time of one training step: `python -m bench step`.

Ours against the plain composition (bench/plain_step.py) as its own users would run it: in eager float32; with
channels_last, bfloat16 and fused Adam; and that under torch.compile, on a GPU with max-autotune and CUDA graphs. All
contenders are interleaved in one run. Before anything is timed ours and the plain step must have the same gradients,
and the first step of every contender the same losses. Compile time is told apart.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from tqdm import tqdm

from bench import record, replay
from bench.clock import interleaved, quartiles
from bench.same_step import check_same_step
from bench.step_contenders import BASE, OURS, SEED, Contender, Settings, contenders, loss_network, settings
from bench.tuned import tuned

# Losses of the first step, relative to float32's.
TOLERANCES = {"fp32": 1e-3, "bf16": 2e-2}


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
    """The command; returns its exit status: 0, or 1 if our step computes something else than the plain one."""
    parser = argparse.ArgumentParser(
        prog="python -m bench step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, help="images a step; 64 on a GPU, 32 on a CPU")
    parser.add_argument("--width", type=int, help="of the networks; 32")
    parser.add_argument("--rounds", type=int, help="samples of each contender; 30 on a GPU, 8 on a CPU")
    parser.add_argument("--no-compiled", action="store_true", help="leave out what needs torch.compile")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes; the figures mean nothing")
    parser.add_argument("--out", type=Path, help="the record, bench/records/DATE-MACHINE-step.json unless given")
    options = parser.parse_args(arguments)
    for name, least in (("batch", 2), ("width", 1), ("rounds", 1)):
        if (value := getattr(options, name)) is not None and value < least:
            parser.error(f"--{name} must be {least} or more; got {value}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a time limit, too, leaves the record
    default = settings(tiny=options.tiny)
    chosen = replace(
        default,
        batch=options.batch or default.batch,
        width=options.width or default.width,
        rounds=options.rounds or default.rounds,
        compiled=default.compiled and not options.no_compiled,
    )
    out = options.out or record.path_for("step")
    notes: list[str] = (
        [] if chosen.device == "cuda" else ["no GPU: nothing was captured, and no Triton kernel was timed"]
    )
    rows: list[Row] = []
    status = 1
    try:
        rows += measure(chosen, notes.append)
        print(table(rows))
        status = 0
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


def measure(chosen: Settings, note: Callable[[str], None]) -> list[Row]:
    """Checks, then times; a row for each contender that runs on this machine.

    Raises:
        AssertionError: our step computes something else than the plain one.
    """
    pixels = torch.randint(
        0, 256, (chosen.batch, chosen.image_size, chosen.image_size, 3), dtype=torch.uint8, device=chosen.device
    )
    generator = torch.Generator(chosen.device).manual_seed(SEED)
    noise = torch.empty(chosen.batch, 100, device=chosen.device).normal_(generator=generator)
    check_same_step(loss_network(chosen.layers), pixels[:4], noise[:4])
    with tuned(chosen.device):
        taking_part = contenders(chosen, note)
        calls, facts = {}, {}
        for name, contender in tqdm(taking_part.items(), desc="first calls", file=sys.stderr, disable=None):
            try:
                calls[name], facts[name] = _ready(chosen, contender, pixels, noise)
            except Exception as error:  # a peer that cannot run here must not cost the others their numbers
                if name.startswith(OURS):
                    raise
                note(f"left out: {name}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
                continue
            if wrong := _difference(facts[name].losses, facts[BASE].losses, TOLERANCES[contender.precision]):
                if name.startswith(OURS):
                    raise AssertionError(f"{name}: {wrong}")
                note(f"left out: {name} is wrong: {wrong}")
                del calls[name]
        if skips := counters["inductor"]["cudagraph_skips"]:
            note(f"torch.compile ran {skips} of the compiled peer's graphs without a CUDA graph")
        samples = interleaved(calls, rounds=chosen.rounds, device=chosen.device, note=note, captured=False)
    rows = []
    for name, values in samples.items():
        values = [value / chosen.steps_per_sample for value in values]
        low, median, high = quartiles(values)
        rows.append(
            Row(
                contender=name,
                what=taking_part[name].what,
                batch=chosen.batch,
                first_call_s=round(facts[name].first_call_s, 2),
                median_s=round(median, 7),
                quartiles_s=(round(low, 7), round(high, 7)),
                images_per_s=round(chosen.batch / median, 2),
                memory_mib=facts[name].memory_mib,
                samples_s=[round(value, 7) for value in values],
            )
        )
    return rows


class _Facts(NamedTuple):
    first_call_s: float
    losses: dict[str, float]
    memory_mib: float | None


def _ready(chosen: Settings, contender: Contender, pixels: Tensor, noise: Tensor) -> tuple[Callable[[], None], _Facts]:
    """The contender compiled and captured: a call of `steps_per_sample` steps, and what its first steps told."""
    on_gpu = chosen.device == "cuda"

    def reserved_mib() -> float:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved() / 2**20

    before = reserved_mib() if on_gpu else 0.0
    call, losses = contender.build(pixels, noise)
    start = time.perf_counter()
    call()
    first_losses = losses()  # waits for the step
    first_call_s = time.perf_counter() - start
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

    return sample, _Facts(first_call_s, first_losses, memory)


def _difference(losses: dict[str, float], base: dict[str, float], tolerance: float) -> str | None:
    """What is wrong with the losses of a first step, in words; the critic's is a difference that may cancel."""
    for name in ("kl", "rec"):
        error = abs(losses[name] - base[name]) / abs(base[name])
        if not error <= tolerance:
            return f"{name} of the first step is {losses[name]:.6g}, expected {base[name]:.6g} to {tolerance:g}"
    return None


def table(rows: list[Row]) -> str:
    """For people: a line for each contender, speeds as multiples of the eager float32 step's and of the best peer's."""
    base = next(row.median_s for row in rows if row.contender == BASE)
    best = min(row.median_s for row in rows if not row.is_ours)
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
    return {row.contender: row for row in measure(settings(tiny=tiny), print)}


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
