"""Times contenders in turns, so that what a machine does meanwhile hits all of them alike.

On a GPU each contender is captured in a CUDA graph first: what is timed is the device's work, as in a captured
training step, and not how fast Python launches it. Its memory is cold: the L2 cache is overwritten before every call,
which also gives the host time to be ahead.
"""

import time
from collections.abc import Callable, Iterable

import torch

Contenders = dict[str, Callable[[], object]]
Samples = dict[str, list[float]]

_WARMUPS = 3


def interleaved(contenders: Contenders, *, rounds: int, device: str, note: Callable[[str], None] = print) -> Samples:
    """Seconds of `rounds` calls of each contender, taken in turns.

    Args:
        contenders: functions without arguments, by name. One that cannot be captured is left out and noted.
        rounds: calls of each, after warm-up calls that compile and are not counted.
        device: "cuda" or "cpu", where the contenders work.
        note: told, in words, what was left out and why.

    Returns:
        The samples by name, in the order of the contenders.
    """
    ready = {}
    for name, call in contenders.items():
        _warm_up(call)
        try:
            ready[name] = _captured(call) if device == "cuda" else call
        except RuntimeError as error:
            note(f"left out: {name} cannot be captured in a CUDA graph: {str(error).strip().splitlines()[:1]}")
    timed = _on_the_gpu(ready, rounds) if device == "cuda" else _on_the_cpu(ready, rounds)
    return {name: timed[name] for name in ready}


def _warm_up(call: Callable[[], object]) -> None:
    for _ in range(_WARMUPS):
        call()


def _captured(call: Callable[[], object]) -> Callable[[], None]:
    # Warm-up on a side stream, as capturing wants it: https://docs.pytorch.org/docs/stable/notes/cuda.html
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        _warm_up(call)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # A capture that fails leaves its own stream current: the outer block puts this one back.
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
        call()
    return graph.replay


def _on_the_cpu(calls: Contenders, rounds: int) -> Samples:
    samples = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - start)
    return samples


def _on_the_gpu(calls: Contenders, rounds: int) -> Samples:
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    cache = torch.empty(max(2 * properties.L2_cache_size, 2**26), dtype=torch.int8, device="cuda")
    events = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            cache.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            events[name].append((start, end))
    torch.cuda.synchronize()
    return {name: [start.elapsed_time(end) / 1e3 for start, end in pairs] for name, pairs in events.items()}


def quartiles(samples: Iterable[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, interpolated."""
    values = torch.tensor(list(samples), dtype=torch.float64)
    return tuple(torch.quantile(values, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist())
