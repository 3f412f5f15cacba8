"""`pytest bench`: the suites under pytest-benchmark, with samples taken in turns (bench/measuring/replay.py)."""

import pytest
import torch

from bench.measuring import replay


def pytest_addoption(parser):
    """--tiny, to try a benchmark out; its figures mean nothing."""
    parser.addoption("--tiny", action="store_true", help="benchmarks scaled down to seconds")


def pytest_collection_modifyitems(config, items):
    """Every benchmark reads the replayed clock."""
    benchmarks = [item for item in items if "benchmark" in getattr(item, "fixturenames", ())]
    if benchmarks and not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("pytest bench needs pytest-benchmark: pip install -e '.[bench]'")
    for item in benchmarks:
        own = item.get_closest_marker("benchmark")
        options = own.kwargs if own else {}
        item.add_marker(pytest.mark.benchmark(**options, timer=replay.clock), append=False)


def pytest_runtest_setup(item):
    """Skips tests marked `gpu` where there is no GPU."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def tiny(pytestconfig) -> bool:
    """Whether --tiny was given."""
    return pytestconfig.getoption("--tiny")
