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
        clock: seconds of so many calls of each contender, in turns.
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
        self._tried: dict[str, Entries] = {}

    def run(self) -> Entries:
        """The entries to write; none of a key whose default is as good."""
        first, defaults, aten = self.problem.calls[0], self.problem.defaults, {self.problem.key: None}
        with self._trial.in_use():
            times = self._screened([defaults, *first.first_entries(defaults)])
            times |= self._screened(first.next_entries(self._ranked(times), self.machine.capability))
            ranked = self._ranked(times)
            finalists = ranked[:FINALISTS] + [entries for entries in ranked[FINALISTS:] if entries == defaults]
            finals = self._times([*finalists, aten], FINAL_ROUNDS)
        # Infinite where it cannot run here.
        default_s, aten_s = (finals.pop(label(entries), math.inf) for entries in (defaults, aten))
        best = min(finals, key=finals.get, default="none")
        best_s = finals.get(best, math.inf)
        chosen: Entries = {}
        if best_s < default_s * (1 - MARGIN):
            chosen = {key: tile for key, tile in self._tried[best].items() if tile != defaults[key]}
        if aten_s < min(best_s, default_s) * (1 - MARGIN):
            chosen = aten
        times_us = f"default {1e6 * default_s:.1f} us, best {1e6 * best_s:.1f} us ({best}), ATen {1e6 * aten_s:.1f} us"
        self.say(f"{self.problem.name}: {times_us} -> {described(chosen)}")
        return chosen

    def _ranked(self, times: dict[str, float]) -> list[Entries]:
        return [self._tried[name] for name in sorted(times, key=times.get)]

    def _screened(self, made: list[Entries]) -> dict[str, float]:
        """Times of those that have not been tried yet and compute the right thing, by label."""
        new = {label(entries): entries for entries in made if label(entries) not in self._tried}
        self._tried |= new
        self.machine.compile_ahead([self._contender(entries) for entries in new.values()])
        return self._times([entries for entries in new.values() if self._is_right(entries)], SCREENING_ROUNDS)

    def _times(self, made: list[Entries], rounds: int) -> dict[str, float]:
        samples = self.machine.clock({label(entries): self._contender(entries) for entries in made}, rounds)
        return {name: statistics.median(seconds) for name, seconds in samples.items()}

    def _contender(self, entries: Entries) -> Callable[[], None]:
        def call():
            self._enter(entries)
            for gate in self._gates:
                gate.run()

        return call

    def _enter(self, entries: Entries) -> None:
        self._trial.clear()
        if entries != self.problem.defaults:  # which the calls may differ in
            self._trial.update(entries)

    def _is_right(self, entries: Entries) -> bool:
        self._enter(entries)
        try:
            for gate in self._gates:
                gate.check()
        except OutOfResources:
            return False
        except Exception as error:
            self.wrong += 1
            reason = str(error).strip().partition("\n")[0]
            self.say(f"REFUSED: {self.problem.name}: {label(entries)}: {type(error).__name__}: {reason}")
            if self.machine.device == "cuda":
                torch.cuda.synchronize()  # raises if the GPU's context is broken, and with it all that would follow
            return False
        return True


def label(entries: Entries) -> str:
    """A name for the tiles, e.g. "BLOCK_M=64 num_warps=4"; a data gradient's, then its ring's."""
    return "; ".join(
        "ATen" if tile is None else " ".join(f"{k}={v}" for k, v in tile.items()) for tile in entries.values()
    )


def described(chosen: Entries) -> str:
    """The entries that are written, human-readable."""
    return "; ".join(f"{key.split()[0]} {label({key: tile})}" for key, tile in chosen.items()) or "the default"
