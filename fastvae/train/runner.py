"""Runs steps: on a GPU as one CUDA graph each, from the gathering of the batch to the updates.

The graph holds everything that a step does on the device. The noise is drawn in front of it, in a launch of its own: a
generator inside a graph needs two launches before each replay, for its seed and its offset.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.train.feed import Feed
from fastvae.train.meter import Meter
from fastvae.train.step import Step

# Before capturing: lazily made workspaces and optimiser states, cuDNN's choice of algorithms, the compiler.
_WARM_UPS = 3


class Runner:
    """Runs the steps of a training run, one a call.

    Args:
        step: what a step computes.
        feed: where its images come from.
        noise: generator on the step's device.
        meter: told every step's loss terms.
        capture: replay CUDA graphs, one for each sequence of passes that the objective asks for.

    Attributes:
        noise: float32 [B, noise_size], the last step's.
    """

    def __init__(self, step: Step, feed: Feed, noise: torch.Generator, meter: Meter, *, capture: bool):
        self.step, self.feed, self.meter, self.capture = step, feed, meter, capture
        self._generator = noise
        self.noise = torch.zeros(feed.order.batch_size, step.objective.noise_size, device=step.device)
        self._graphs: dict[tuple[str, ...], tuple[torch.cuda.CUDAGraph, tuple[str, ...], Tensor]] = {}
        self._warm: set[tuple[str, ...]] = set()
        self._pixels: Tensor | None = None

    @property
    def pixels(self) -> Tensor:
        """uint8 [B, H, W, 3], the last step's batch on the device, until the next step."""
        return self._pixels

    def __call__(self, number: int) -> None:
        """Runs step `number`, from 0; on a GPU without waiting for it.

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
                graph, names, self._pixels = self._graphs[phase]
                graph.replay()
            else:
                names, self._pixels = self._body(number)
        self.meter.count(names)

    def warm_up(self, number: int) -> float:
        """Compiles and captures what step `number` needs, and leaves no trace in the training.

        Returns:
            The seconds that it took.

        Raises:
            FastvaeError: the step cannot be compiled or captured, or the memory is too small for it.
        """
        start = time.perf_counter()
        before = _State(self)
        how = f" while it was being {' and '.join(self._prepares())}" if self._prepares() else ""
        if not self.capture:
            self.feed.ready(number)
        with self._explained(f"step {number + 1} failed{how}"):
            if self.capture:
                self._capture(number, before)
            else:
                self._rehearse(number, before)
        self._warm.add(self._phase(number))
        return time.perf_counter() - start

    def _prepares(self) -> dict[str, str]:
        """What happens to a step before it can run, and the flag that leaves it out."""
        compiled = {"compiled": "--compile off"} if self.step.compile_passes else {}
        return compiled | ({"captured": "--cuda-graph off"} if self.capture else {})

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except FastvaeError:
            raise
        except Exception as error:  # the compiler raises whatever its parts raise, AssertionError among them
            if _is_out_of_memory(error):
                resident = ", or --resident off" if self.step.device.type == "cuda" else ""
                raise FastvaeError(
                    f"{what}: the memory is too small for it ({_summary(error)}); give a smaller --batch-size{resident}"
                ) from error
            if not self._prepares():
                raise
            raise FastvaeError(
                f"{what} ({_summary(error)}): {' or '.join(self._prepares().values())} may get round it"
            ) from error

    def _rehearse(self, number: int, before: "_State") -> None:
        try:
            self._body(number)
        finally:
            before.restore()

    def _body(self, number: int) -> tuple[tuple[str, ...], Tensor]:
        pixels = self.feed.batch()
        terms = self.step(pixels, self.noise, number)
        self.meter.record(terms)
        return tuple(terms), pixels

    def _capture(self, number: int, before: "_State") -> None:
        # The feed need not be ready: whatever its array holds will do, since the state is restored.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._rehearse(number, before)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads, a loader's among them, may do what a capturing thread must not. A capture that fails leaves its
        # own stream current: the outer block puts this one back.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, capture_error_mode="thread_local"),
        ):
            names, pixels = self._body(number)
        self._graphs[self._phase(number)] = graph, names, pixels

    def _phase(self, number: int) -> tuple[str, ...]:
        return tuple(part.name for part in self.step.objective.passes(number))


def _is_out_of_memory(error: Exception) -> bool:
    # torch has no class of its own for the CPU's.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _summary(error: Exception) -> str:
    """The error's class and the first line of it that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    said = next((line for line in lines if line and not line.endswith("raised:")), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _State:
    """A copy of everything that a step changes on the device."""

    def __init__(self, runner: Runner):
        step = runner.step
        networks = step.objective.networks.values()
        tensors = [t for n in networks for t in (*n.parameters(), *n.buffers())]
        tensors += [*runner.feed.state, *runner.meter.state]
        self._copies = [(t, t.detach().clone()) for t in tensors]
        self._optimizers = [update.optimizer for update in step.updates.values()]
        self._copies += [(t, t.clone()) for t in self._optimizer_tensors()]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts it back, in place."""
        known = {id(tensor) for tensor, _ in self._copies}
        for tensor, copy in self._copies:
            tensor.copy_(copy)
        for tensor in self._optimizer_tensors():
            if id(tensor) not in known:
                tensor.zero_()  # made by the first step, and zero before it

    def _optimizer_tensors(self) -> Iterator[Tensor]:
        for optimizer in self._optimizers:
            for state in optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))
