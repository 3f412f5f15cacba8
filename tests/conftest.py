"""Options, and fixtures that several test files share."""

import copy
import functools
import logging
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvae import machine
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.exact_float32 import exact_float32
from fastvae.lossnet import standin
from tests import strict_skips
from tests.strict_skips import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401

# pytest listens to every logger that keeps its messages from the root's, and for whoever listens to this one torch
# prints all graphs.
logging.getLogger("torch.__trace").propagate = True

ENGINES = "FASTVAE_TESTS_ENGINES"  # the variable with the folder of compiled C++
MAX_WORKERS = 4  # each holds torch and what it compiles
# What takes half a minute or more; see `_long_ones_first`.
LONG_FILES = [
    "bench/test_bare_machine.py",
    "train/test_torchrun.py",
    "train/test_systems.py",
    "train/test_trainer.py",
    "bench/all/test_gate.py",
    "kernels/test_resources.py",
    "export/test_export.py",
    "train/test_how_runs_end.py",
]


def pytest_configure(config):
    """What libraries read when they are imported, which tests' files may do; for processes that tests start, too.

    Inductor's kernels for a CPU need no vector instructions here, whose headers take the C++ compiler longest; no
    server is asked for models; and those that tests start on this machine are not behind a proxy.
    """
    os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


def pytest_addoption(parser):
    """--strict-skips, --slow, --fuzz and --part."""
    strict_skips.pytest_addoption(parser)
    parser.addoption("--slow", action="store_true", help="run what is marked slow, too")
    parser.addoption("--fuzz", action="store_true", help="run fuzz tests at full length, not a sixth of their cases")
    parser.addoption("--part", metavar="I/N", help="run every N-th of the tests, from the I-th on")


@pytest.hookimpl(trylast=True)  # after -m and -k, or the parts would differ in size
def pytest_collection_modifyitems(config, items):
    """What is marked `slow` repeats, in full, what another test shows of its essence: only --slow runs it."""
    if not config.getoption("--slow"):
        _keep(config, items, [item for item in items if not item.get_closest_marker("slow")])
    if part := config.getoption("--part"):
        number, count = map(int, part.split("/"))
        _keep(config, items, items[number - 1 :: count])
    if workers := getattr(config, "workerinput", {}).get("workercount"):
        items[:] = _long_ones_first(items, workers)


def _long_ones_first(items, workers):
    """Each of xdist's workers begins with neighbouring tests, and in the end takes others' last ones.

    The files with the longest tests, whole, since their tests share fixtures, come first in the workers' shares, one
    after the other: at the end of all, one worker would wait for a minute's test of the other.
    """
    files = {name: [item for item in items if item.path.as_posix().endswith(name)] for name in LONG_FILES}
    rest = [item for item in items if not item.path.as_posix().endswith(tuple(LONG_FILES))]
    shares, ordered = [[] for _ in range(workers)], []
    for number, found in enumerate(files.values()):
        shares[number % workers] += found
    for number, share in enumerate(shares):
        count = len(items) * (number + 1) // workers - len(ordered) - len(share)
        ordered += share + rest[: max(count, 0)]
        del rest[: max(count, 0)]
    return ordered + rest


def _keep(config, items, kept):
    left_out = set(items).difference(kept)
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = kept


def pytest_runtest_setup(item):
    """What is marked `gpu` is skipped where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """How many processes `-n auto`, and so `tools/dev test`, divides the tests among; 0 for none but pytest's own."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shows_output = config.getoption("capture") == "no"  # workers have no terminal
    return 0 if shows_output or cores == 1 else min(cores, MAX_WORKERS)


@pytest.fixture
def signals_of_a_terminal():
    """No signal is ignored, as some are in what nohup or a shell in the background starts, and in its children."""
    usual = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL, "SIGTERM": signal.SIG_DFL}
    numbers = {getattr(signal, name): handler for name, handler in usual.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory, pytestconfig):
    """Tests neither read nor fill the cache of whoever runs them."""
    cache = tmp_path_factory.mktemp("cache")
    # xdist's workers, and processes of pytest that tests start, compile C++ once for all; the rest is each one's own.
    engines = os.environ.get(ENGINES)
    if hasattr(pytestconfig, "workerinput"):
        engines = engines or tmp_path_factory.getbasetemp().parent / "engines"
    if engines:
        Path(engines).mkdir(exist_ok=True)
        (cache / "native").symlink_to(engines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTVAE_CACHE", str(cache))
        patch.setenv(ENGINES, str(engines or cache / "native"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _own_compiled_code(tmp_path_factory):
    """Inductor's cache does not know that ATEN_CPU_CAPABILITY hides instructions which kernels in it may use."""
    with pytest.MonkeyPatch.context() as patch:
        if "ATEN_CPU_CAPABILITY" in os.environ:
            patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _stand_in_drawn_once():
    """Hundreds of tests train with the stand-in loss network, which takes half a second to calibrate."""
    drawn = functools.cache(standin._drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standin, "_drawn", lambda taps: copy.deepcopy(drawn(taps)))
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """The problems are tiny, and threads that wait for each other on a busy machine take minutes over them."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"):  # of processes that tests start; of Inductor
            patch.setenv(name, "1")
        # Inductor would start processes for a GPU's kernels before anything asks for them.
        patch.setenv("TORCH_WARM_POOL", "0")
        yield


@pytest.fixture
def cases(request):
    """cases(300) -> how many of 300 random cases a fuzz test tries: all with --fuzz, else the first sixth."""
    return lambda count: count if request.config.getoption("--fuzz") else max(count // 6, 1)


@pytest.fixture
def without_tf32():
    """float32 is float32 on a GPU too: in TF32, torch's default, there is no rule how an operation may round."""
    with exact_float32():
        yield


@pytest.fixture(autouse=True, scope="session")
def _precision_is_named():
    """Fails a test whose precision would follow from the processor that it happens to run on."""

    def refuse():
        pytest.fail("name the precision (--precision, TrainConfig.precision) or the instructions (fixture `processor`)")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "processor_instructions", refuse)
        yield


@pytest.fixture
def processor(monkeypatch):
    """processor("avx512_bf16", ...) -> None; from then on the CPU seems to have these instructions and no others."""

    def seems(*instructions: str, torch_uses: str = "AVX512", onednn: bool = True) -> None:
        monkeypatch.setattr(machine, "processor_instructions", lambda: frozenset(instructions))
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: torch_uses)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)

    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    return seems


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def blobs(count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, size, size, 3]: a bright disc of random place and colour on a dark ground; quick to learn."""
    random = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[:size, :size]
    cy, cx = random.uniform(size / 4, 3 * size / 4, (2, count, 1, 1))
    inside = (y - cy) ** 2 + (x - cx) ** 2 < (size / 5) ** 2
    colours = random.integers(100, 256, (count, 1, 1, 3))
    return np.where(inside[..., None], colours, 30).astype(np.uint8)


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> PackedImages:
    """48 images of 32x32: 40 to train on, 8 held out."""
    path = tmp_path_factory.mktemp("packed") / "blobs.fvae"
    with PackedWriter(path, image_size=32) as writer:
        writer.append(blobs(48, 32), splits=(np.arange(48) >= 40).astype(np.uint8))
    return PackedImages.open(path)


@pytest.fixture(scope="session")
def run(packed, tmp_path_factory):
    """The folder of a run: three steps of the smallest VAE."""
    from fastvae.cli import main

    folder = tmp_path_factory.mktemp("runs") / "run"
    flags = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--steps", "3"]
    flags += ["--precision", "fp32", "--device", "cpu"]
    assert main(["train", "celeba64-plain", "--data", str(packed.path), "--out", str(folder), *flags]) == 0
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A folder with 1 MiB of space."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    # Lazily: a mapped file of a finished run may wait for the garbage collector.
    subprocess.run(["umount", "--lazy", folder], check=True)
