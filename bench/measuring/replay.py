"""Hands samples that were taken in turns to pytest-benchmark, whose own loop would time one contender after the other.

`bench/conftest.py` makes `clock` the timer of every benchmark below bench/. It stands still but for the samples that
are played to it, so that pytest-benchmark's table, JSON and --benchmark-compare show these and nothing else.
"""

from collections.abc import Iterable

_now_s = 0.0


def clock() -> float:
    """Seconds; pytest-benchmark's `timer`."""
    return _now_s


def hand_over(benchmark, samples_s: Iterable[float]) -> None:
    """Makes the samples this benchmark's rounds.

    Args:
        benchmark: pytest-benchmark's fixture.
        samples_s: seconds of each call.
    """
    samples_s = list(samples_s)
    coming = iter(samples_s)

    def start_at_zero() -> None:
        # Differences of large sums would round the samples.
        global _now_s
        _now_s = 0.0

    def play() -> None:
        global _now_s
        # Without a sample left it is --benchmark-disable or another run that times nothing.
        _now_s += next(coming, 0.0)

    benchmark.pedantic(play, setup=start_at_zero, rounds=len(samples_s), iterations=1)
