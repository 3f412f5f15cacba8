"""How `tools.tune` finds the tile of one problem: check, time, compare."""

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from bench.measuring.clock import Contenders, Samples
from bench.measuring.closeness import assert_close
from fastvae.kernels import dispatch
from fastvae.kernels.tiles import Tile
from tools.tune.problems import Call, Entries, Operands, Problem, Trial

# A gain below this share is taken for noise.
MARGIN = 0.03
FINALISTS = 4
SCREENING_ROUNDS, FINAL_ROUNDS = 20, 100

Say = Callable[[str], None]  # prints a line


@dataclass(frozen=True)
class Machine:
    """Where tiles are tried.

    Attributes:
        device: of the operands.
        capability: of the GPU.
        clock: seconds of each contender's calls, taken in turns, given the number of calls.
        compile_ahead: compiles what these calls would start.
    """

    device: str
    capability: tuple[int, int]
    clock: Callable[[Contenders, int], Samples]
    compile_ahead: Callable[[list[Callable[[], object]]], None]


class Gate:
    """What a call must compute, and its operands."""

    def __init__(self, call: Call, device: str):
        self.call = call
        self._operands = call.operands(device)
        self._timed = _mapped(torch.clone, self._operands)
        with dispatch.force("aten"), torch.no_grad():
            self._plain = call.run(*_mapped(torch.clone, self._operands))
            self._exact = call.run(*_mapped(_widened, self._operands))
            self._terms = [None] * len(self._exact)
            if call.sums_products:
                self._terms = call.run(*_mapped(lambda t: t.double().abs(), self._operands))

    @torch.no_grad()
    def run(self) -> None:
        """One call, for timing."""
        self.call.run(*self._timed)

    @torch.no_grad()
    def check(self) -> None:
        """Raises AssertionError unless the call, as the ops would run it now, is as good as ATen's."""
        with _memory_filled():
            results = self.call.run(*_mapped(torch.clone, self._operands))
        for result, plain, exact, terms in zip(results, self._plain, self._exact, self._terms, strict=True):
            assert_close(result, plain, exact, terms)


def _mapped(f: Callable[[Tensor], Tensor], operands: Operands) -> Operands:
    if isinstance(operands, list):
        return [_mapped(f, t) for t in operands]
    return None if operands is None else f(operands)


def _widened(t: Tensor) -> Tensor:
    return t.double() if t.dim() else t.clone()  # an optimiser's counters are scalars, and float32 everywhere


@contextmanager
def _memory_filled() -> Iterator[None]:
    """Fresh memory full of NaN, or a tile that leaves out pixels would be given those of the tile before it."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


class Search:
    """The tiles of one problem: tried, timed, compared."""

    def __init__(self, problem: Problem, machine: Machine, say: Say):
        self.problem, self.machine, self.say = problem, machine, say
        self.wrong = 0
        self._gates = [Gate(call, machine.device) for call in problem.calls]
        self._trial = Trial()
        self._tried: dict[str, Tile] = {}

    def run(self) -> Entries:
        """The entry to write; none if the default is as good."""
        first, default = self.problem.calls[0], self.problem.default
        with self._trial.in_use():
            times = self._screened([default, *first.first_tiles(default)])
            times |= self._screened(first.next_tiles(self._ranked(times), self.machine.capability))
            ranked = self._ranked(times)
            finalists = ranked[:FINALISTS] + [tile for tile in ranked[FINALISTS:] if tile == default]
            finals = self._times([*finalists, None], FINAL_ROUNDS)
        # Infinite where it cannot run here.
        default_s, aten_s = (finals.pop(label(tile), math.inf) for tile in (default, None))
        best = min(finals, key=finals.get, default="none")
        best_s = finals.get(best, math.inf)
        chosen: Entries = {}
        if best_s < default_s * (1 - MARGIN):
            chosen = {self.problem.key: self._tried[best]}
        if aten_s < min(best_s, default_s) * (1 - MARGIN):
            chosen = {self.problem.key: None}
        times_us = f"default {1e6 * default_s:.1f} us, best {1e6 * best_s:.1f} us ({best}), ATen {1e6 * aten_s:.1f} us"
        decision = label(chosen[self.problem.key]) if chosen else "the default"
        self.say(f"{self.problem.name}: {times_us} -> {decision}")
        return chosen

    def _ranked(self, times: dict[str, float]) -> list[Tile]:
        return [self._tried[name] for name in sorted(times, key=times.get)]

    def _screened(self, made: list[Tile]) -> dict[str, float]:
        """Times of those that have not been tried yet and compute the right thing, by label."""
        new = {label(tile): tile for tile in made if label(tile) not in self._tried}
        self._tried |= new
        self.machine.compile_ahead([self._contender(tile) for tile in new.values()])
        return self._times([tile for tile in new.values() if self._is_right(tile)], SCREENING_ROUNDS)

    def _times(self, made: list[Tile | None], rounds: int) -> dict[str, float]:
        samples = self.machine.clock({label(tile): self._contender(tile) for tile in made}, rounds)
        return {name: statistics.median(seconds) for name, seconds in samples.items()}

    def _contender(self, tile: Tile | None) -> Callable[[], None]:
        def call():
            self._enter(tile)
            for gate in self._gates:
                gate.run()

        return call

    def _enter(self, tile: Tile | None) -> None:
        self._trial.clear()
        if tile != self.problem.default:  # which the calls may differ in
            self._trial[self.problem.key] = tile

    def _is_right(self, tile: Tile) -> bool:
        self._enter(tile)
        try:
            for gate in self._gates:
                gate.check()
        except OutOfResources:
            return False
        except Exception as error:
            self.wrong += 1
            reason = str(error).strip().partition("\n")[0]
            self.say(f"REFUSED: {self.problem.name}: {label(tile)}: {type(error).__name__}: {reason}")
            if self.machine.device == "cuda":
                torch.cuda.synchronize()  # raises if the GPU's context is broken, and with it all that would follow
            return False
        return True


def label(tile: Tile | None) -> str:
    """A tile's name, e.g. "BLOCK_M=64 num_warps=4"."""
    return "ATen" if tile is None else " ".join(f"{k}={v}" for k, v in tile.items())
