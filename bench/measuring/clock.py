"""Times contenders in turns, so that disturbances of the machine hit all of them equally.

On a GPU each contender is captured in a CUDA graph first: what is timed is the device's work, as in a captured
training step, and not how fast Python launches it. Its memory is cold: the L2 cache is overwritten before every call,
which also gives the host time to be ahead. Whole steps and inference are timed as they are instead (`captured=False`,
`latencies`), launches included.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import torch

Contenders = dict[str, Callable[[], object]]
Samples = dict[str, list[float]]
# Called with the name of a contender that fails, and its error.
Drop = Callable[[str, Exception], None]

_WARMUPS = 3


def interleaved(
    contenders: Contenders,
    *,
    rounds: int,
    device: str,
    note: Callable[[str], None] = print,
    drop: Drop | None = None,
    captured: bool = True,
) -> Samples:
    """Seconds of `rounds` calls of each contender, taken in turns.

    Args:
        contenders: functions without arguments, by name. One that fails or cannot be captured is left out and noted.
        rounds: calls of each, after warm-up calls that compile and are not counted.
        device: "cuda" or "cpu", where the contenders work.
        note: called with a message about what was left out and why.
        drop: called instead, with the name of what is left out and its error.
        captured: whether a GPU's contenders are captured and start with a cold cache. False for what is much longer
            than a launch or has CUDA graphs of its own: it starts on an idle device and its launches count.

    Returns:
        The samples by name, in the order of the contenders.
    """

    def say(name: str, error: Exception) -> None:
        note(f"left out: {name} does not run or cannot be captured: {' '.join(str(error).strip().splitlines()[:1])}")

    drop = drop or say
    ready = {}
    for name, call in contenders.items():
        try:
            warm_up(call)
            ready[name] = captured_call(call) if device == "cuda" and captured else call
        except Exception as error:  # the compiler raises errors of any class
            drop(name, error)
    if device == "cuda" and captured:
        return _with_cold_cache(ready, rounds, drop)
    return _collected(ready, rounds, device, drop)


def turns(contenders: Contenders, device: str, drop: Drop) -> Iterator[dict[str, float]]:
    """Seconds of one call of each contender by name, again and again; the caller may stop between rounds.

    Args:
        contenders: functions without arguments, by name; warmed up. On a GPU they are timed as they are: each starts
            on an idle device and its launches count.
        device: "cuda" or "cpu", where the contenders work.
        drop: called with a contender's name and its error when it fails; it has no further turns. When none is left
            the turns end.
    """
    timed, left = _device_s if device == "cuda" else _host_s, dict(contenders)
    while left:
        seconds = {}
        for name, call in tuple(left.items()):
            try:
                seconds[name] = timed(call)
            except Exception as error:
                del left[name]
                drop(name, error)
        yield seconds


def latencies(contenders: Contenders, *, rounds: int, device: str, drop: Drop) -> Samples:
    """Seconds from each call to its results being there, as a caller who waits for them sees it; taken in turns.

    Args:
        contenders: functions without arguments, by name.
        rounds: calls of each, after warm-up calls that are not counted.
        device: "cuda" or "cpu", where the contenders work.
        drop: called with a contender's name and its error when it fails, at whichever call.

    Returns:
        The samples by name, in the order of the contenders, without those that failed.
    """
    ready = {}
    for name, call in contenders.items():
        try:
            warm_up(call)
            ready[name] = call
        except Exception as error:
            drop(name, error)
    if device == "cpu":
        return _collected(ready, rounds, device, drop)

    def waiting(call: Callable[[], object]) -> Callable[[], None]:
        def wait():
            call()
            torch.cuda.synchronize()

        return wait

    return _collected({name: waiting(call) for name, call in ready.items()}, rounds, "cpu", drop)


def warm_up(call: Callable[[], object]) -> None:
    """A few calls that compile and fill caches."""
    for _ in range(_WARMUPS):
        call()


def captured_call(call: Callable[[], object]) -> Callable[[], object]:
    """The call in a CUDA graph: a function that replays it and returns its results, the same tensors every time.

    Raises:
        RuntimeError: it cannot be captured.
    """
    # Warm-up on a side stream, as capturing wants it: https://docs.pytorch.org/docs/stable/notes/cuda.html
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        warm_up(call)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # A capture that fails leaves its own stream current: the outer block puts this one back.
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
        # With their autograd graph the kept results would keep the nodes of leaves alive that other calls share; those
        # belong to this capture's stream, and another stream may not wait for them.
        results = detached(call())

    def replay() -> object:
        graph.replay()
        return results

    return replay


def detached(results: object) -> object:
    """Tensors, also those in lists and tuples, without their autograd graph; anything else as it is."""
    if isinstance(results, torch.Tensor):
        return results.detach()
    return [detached(each) for each in results] if isinstance(results, list | tuple) else results


def _collected(calls: Contenders, rounds: int, device: str, drop: Drop) -> Samples:
    samples = {name: [] for name in calls}

    def leave_out(name: str, error: Exception) -> None:
        del samples[name]
        drop(name, error)

    for seconds in islice(turns(calls, device, leave_out), rounds):
        for name in samples.keys() & seconds.keys():
            samples[name].append(seconds[name])
    return samples


def _host_s(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _device_s(call: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()  # or a contender that launches fast would give the next one a head start
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def _with_cold_cache(calls: Contenders, rounds: int, drop: Drop) -> Samples:
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    cache = torch.empty(max(2 * properties.L2_cache_size, 2**26), dtype=torch.int8, device="cuda")
    events, left = {name: [] for name in calls}, dict(calls)
    for _ in range(rounds):
        for name, call in tuple(left.items()):
            cache.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            try:
                start.record()
                call()
                end.record()
            except Exception as error:
                del left[name], events[name]
                drop(name, error)
                continue
            events[name].append((start, end))
    torch.cuda.synchronize()
    return {name: [start.elapsed_time(end) / 1e3 for start, end in pairs] for name, pairs in events.items()}


def quartiles(samples: Iterable[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, interpolated."""
    return quantiles(samples, (0.25, 0.5, 0.75))


def quantiles(samples: Iterable[float], points: Sequence[float]) -> tuple[float, ...]:
    """Interpolated; `points` between 0 and 1."""
    values = torch.tensor(list(samples), dtype=torch.float64)
    return tuple(torch.quantile(values, torch.tensor(points, dtype=torch.float64)).tolist())
