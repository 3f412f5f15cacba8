"""Runs training steps; on a GPU each is one CUDA graph, from gathering the batch to the updates.

The graph holds everything that a step does on the device, except drawing the noise, which is one launch before it: a
generator inside a graph needs two launches before each replay, for its seed and its offset.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.optim import tables_copied_once
from fastvae.train.device_feed import Batch
from fastvae.train.feed import Feed
from fastvae.train.meter import Meter
from fastvae.train.step import Step

# Steps before a capture, for lazily created workspaces and optimiser state, cuDNN's choice of algorithms, compilation.
_WARM_UP_STEPS = 3
# Steps that are looked through for other kinds before the first one: WGAN's generator is trained after 100 at first.
_FORESEEN = 1000


class Runner:
    """Runs the steps of a training run, one per call.

    Args:
        step: what a step computes.
        feed: the source of its images.
        noise: generator on the step's device.
        meter: records the loss terms of every step.
        capture: replay CUDA graphs, one for each sequence of passes that the objective uses.

    Attributes:
        batch: what the feed gave the last step, pixels and flips, on the device; valid until the next step.
        noise: float32 [B, noise_size], the noise of the last step.
    """

    def __init__(self, step: Step, feed: Feed, noise: torch.Generator, meter: Meter, *, capture: bool):
        self.step, self.feed, self.meter, self.capture = step, feed, meter, capture
        self._generator = noise
        self.noise = torch.zeros(feed.order.batch_size, step.objective.noise_size, device=step.device)
        self._graphs: dict[tuple[str, ...], tuple[torch.cuda.CUDAGraph, tuple[str, ...], Batch]] = {}
        self._warm: set[tuple[str, ...]] = set()

    def __call__(self, number: int) -> None:
        """Runs step number `number`, from 0. On a GPU it does not wait for the result.

        Raises:
            FastvaeError: as `warm_up`.
        """
        phase = self._phase(number)
        if self._prepares() and phase not in self._warm:
            self.warm_up(number)
        self.feed.ready(number)
        with self._explained(f"step {number + 1} failed"):
            self.noise.normal_(generator=self._generator)
            if self.capture:
                graph, names, self.batch = self._graphs[phase]
                graph.replay()
            else:
                names, self.batch = self._body(number)
        self.meter.count(names)

    def warm_up(self, number: int, total: int = 0) -> float:
        """Compiles and captures what steps need; the state of the training is unchanged afterwards.

        Args:
            number: of the step that comes next.
            total: steps of the run, of which the next thousand are prepared, too, where they are of another kind.

        Returns:
            Seconds it took.

        Raises:
            FastvaeError: the step cannot be compiled or captured, or does not fit into memory.
        """
        start = time.perf_counter()
        how = f" while it was being {' and '.join(self._prepares())}" if self._prepares() else ""
        if not self.capture:
            self.feed.ready(number)
        kinds: dict[tuple[str, ...], int] = {}
        for later in range(number, max(number + 1, min(total, number + _FORESEEN))):
            kinds.setdefault(self._phase(later), later)
        for phase, first in kinds.items():
            before = _State(self)
            with self._explained(f"step {first + 1} failed{how}"):
                if self.capture:
                    self._capture(first, before)
                else:
                    self._warm_up(first, before)
            self._warm.add(phase)
        return time.perf_counter() - start

    def _prepares(self) -> dict[str, str]:
        """What is done to a step before it can run, and the flag that turns it off."""
        compiled = {"compiled": "--compile off"} if self.step.compile_passes else {}
        return compiled | ({"captured": "--cuda-graph off"} if self.capture else {})

    @contextmanager
    def fits(self, what: str) -> Iterator[None]:
        """Says what to do where memory is short: "WHAT: it does not fit into memory ..."."""
        try:
            yield
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            resident = "--resident off or " if self.step.device.type == "cuda" else ""
            raise FastvaeError(
                f"{what}: it does not fit into memory ({_summary(error)}); give {resident}a smaller --batch-size "
                "(a resumed run keeps its own; --init starts a new one from its weights)"
            ) from error

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            with self.fits(what):
                yield
        except FastvaeError:
            raise
        except Exception as error:  # the compiler raises errors of any class, even AssertionError
            if not self._prepares():
                raise
            raise FastvaeError(f"{what} ({_summary(error)}): try {' or '.join(self._prepares().values())}") from error

    def _warm_up(self, number: int, before: "_State") -> None:
        try:
            self._body(number)
        finally:
            before.restore()

    def _body(self, number: int) -> tuple[tuple[str, ...], Batch]:
        pixels, flips = self.feed.batch()
        terms = self.step(pixels, self.noise, number, flips)
        self.meter.record(terms)
        return tuple(terms), (pixels, flips)

    def _capture(self, number: int, before: "_State") -> None:
        # The feed need not be ready: its array may hold anything, since the state is restored.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_STEPS):
                self._warm_up(number, before)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads, such as a loader's, may make calls that are illegal during a capture. A failed
        # capture leaves its own stream current; the outer block restores this one.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            tables_copied_once(),
            torch.cuda.graph(graph, capture_error_mode="thread_local"),
        ):
            names, batch = self._body(number)
        self._graphs[self._phase(number)] = graph, names, batch

    def _phase(self, number: int) -> tuple[str, ...]:
        return tuple(pass_.name for pass_ in self.step.objective.passes(number))


def _is_out_of_memory(error: Exception) -> bool:
    # torch has no exception class for running out of CPU memory.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _summary(error: Exception) -> str:
    """The error's class and its first informative line."""
    lines = (line.strip() for line in str(error).splitlines())
    message = next((line for line in lines if line and not line.endswith("raised:")), "")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class _State:
    """A copy of all device state that a step changes."""

    def __init__(self, runner: Runner):
        step = runner.step
        networks = step.objective.networks.values()
        tensors = [t for n in networks for t in (*n.parameters(), *n.buffers())]
        tensors += [*runner.feed.state, *runner.meter.state, *(step.average.state if step.average else ())]
        self._copies = [(t, t.detach().clone()) for t in tensors]
        self._optimizers = [update.optimizer for update in step.updates.values()]
        self._copies += [(t, t.clone()) for t in self._optimizer_tensors()]

    @torch.no_grad()
    def restore(self) -> None:
        """Restores it in place."""
        known = {id(tensor) for tensor, _ in self._copies}
        for tensor, copy in self._copies:
            tensor.copy_(copy)
        for tensor in self._optimizer_tensors():
            if id(tensor) not in known:
                tensor.zero_()  # created by the first step, with zeros

    def _optimizer_tensors(self) -> Iterator[Tensor]:
        for optimizer in self._optimizers:
            for state in optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))
