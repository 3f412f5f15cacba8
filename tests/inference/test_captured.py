"""`CapturedVAE`: what is captured, when, and what a failure costs.

A graph, which needs a GPU, is replaced by a call that computes here.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from fastvae.errors import FastvaeError
from fastvae.inference import captured, fold
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.captured import CapturedVAE
from fastvae.models import VAE

SIZE, LATENT = 16, 5


class Replayed:
    """In place of a CUDA graph: computes at every call, and keeps what surrounded the capture."""

    made: ClassVar[list["Replayed"]] = []

    def __init__(self, verb, buffer, pool):
        self._verb, self._input = verb, buffer
        self.shape, self.dtype, self.pool = tuple(buffer.shape), buffer.dtype, pool
        self.inference_mode, self.autocast = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cuda")
        self.precision = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
        self.benchmark = torch.backends.cudnn.benchmark
        self._results = verb(buffer)
        Replayed.made.append(self)

    def __call__(self, x):
        self._input[: len(x), : x.shape[1]].copy_(x)
        return [y[: len(x)].clone() for y in self._verb(self._input)]


class Event:
    """In place of CUDA's."""

    def __init__(self):
        self.recorded = 0

    def record(self, stream):
        self.recorded += 1


def wait_event(event: Event) -> None:
    assert event.recorded, "weights are made on another stream, perhaps"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The calls that a capture makes of CUDA's, as far as they are made outside of the graph itself."""
    monkeypatch.setattr(Replayed, "made", [])
    monkeypatch.setattr(captured, "_Graph", Replayed)
    stream = SimpleNamespace(wait_event=wait_event)
    handles = iter(range(100))
    for name, value in {
        "Event": Event,
        "current_stream": lambda: stream,
        "device": lambda device: nullcontext(),
        "graph_pool_handle": lambda: (0, next(handles)),
        "is_current_stream_capturing": lambda: False,
        "get_device_name": lambda device: "a GPU",
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(captured, "compile_obstacle", lambda device: "nothing is compiled in these tests")


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(SIZE, 4, LATENT).eval()


def made(vae, sizes=(1, 4), dtype=torch.float32) -> CapturedVAE:
    return CapturedVAE(vae, dtype, sizes, torch.device("cpu"))


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def pixels(count: int) -> torch.Tensor:
    return ((images(count) + 1) * 127.5).round().to(torch.uint8)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 11])
@torch.no_grad()
def test_the_results_are_the_module_s(vae, count):
    fast = made(vae)
    for given in (images(count), pixels(count)):
        x = given if given.is_floating_point() else given.float() / 127.5 - 1
        found, right = [*fast.encode(given), fast.reconstruct(given)], [*vae.encode(x), vae.reconstruct(x)]
        for y, expected in zip(found, right, strict=True):
            assert y.dtype == torch.float32
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    z = torch.randn(count, LATENT)
    torch.testing.assert_close(fast.decode(z), vae.decode(z), rtol=1e-4, atol=1e-5)


def test_nothing_is_captured_before_it_is_used_and_nothing_twice(vae, caplog):
    fast = made(vae)
    assert Replayed.made == []
    with caplog.at_level(logging.INFO, "fastvae"):
        for _ in range(2):
            fast.encode(images(3))
    assert [graph.shape[0] for graph in Replayed.made] == [4]
    assert "captured encode for batches of 4 on a GPU in" in caplog.text
    fast.encode(pixels(5))  # one of four, one of one
    assert [(graph.shape[0], graph.dtype) for graph in Replayed.made[1:]] == [(4, torch.uint8), (1, torch.uint8)]


def test_graphs_share_their_memory(vae):
    fast = made(vae)
    fast.decode(torch.zeros(1, LATENT))
    fast.reconstruct(images(4))
    assert len({graph.pool for graph in Replayed.made}) == 1


@pytest.mark.parametrize("dtype, channels", [(torch.float32, 3), (torch.bfloat16, 8)])
def test_images_have_channels_that_tensor_cores_read(vae, dtype, channels):
    fast = made(vae, dtype=dtype)
    fast.reconstruct(images(1))
    (graph,) = Replayed.made
    assert graph.shape == (1, channels, SIZE, SIZE) and graph.dtype == dtype
    assert graph._input.is_contiguous(memory_format=torch.channels_last)
    assert graph._input[:, :3].any() and not graph._input[:, 3:].any()


@torch.no_grad()
def test_an_old_gpu_has_contiguous_maps(vae, monkeypatch):
    expected = vae.reconstruct(images(2))  # here in channels_last
    for module in (captured, fold):
        monkeypatch.setattr(module, "map_format", lambda device: torch.contiguous_format)
    seen = []
    convolve = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, *args, **kwargs: seen.append(x) or convolve(x, *args, **kwargs))
    torch.testing.assert_close(made(vae).reconstruct(images(2)), expected, rtol=1e-4, atol=1e-5)
    assert seen and all(x.is_contiguous() for x in seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_caller_s_modes_are_not_captured(vae, dtype):
    """They surround the first call only. An input that is made in inference mode could not be written to outside."""
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision, torch.backends.cudnn.benchmark
    convolutions.fp32_precision = "tf32"
    torch.set_autocast_enabled("cuda", True)
    try:
        with torch.inference_mode():
            fast = made(vae, dtype=dtype)
            first = fast.reconstruct(images(1))
        assert convolutions.fp32_precision == "tf32" and torch.backends.cudnn.benchmark == before[1]
        assert torch.is_autocast_enabled("cuda")
    finally:
        convolutions.fp32_precision = before[0]
        torch.set_autocast_enabled("cuda", False)
    assert torch.equal(fast.reconstruct(images(1)), first)
    (graph,) = Replayed.made
    assert not graph.inference_mode and not graph.autocast and graph.benchmark
    assert graph.precision == ("ieee", "ieee")


class Failing(Replayed):
    """The method whose input this is cannot be captured, as long as `fails`."""

    fails = True

    def __init__(self, verb, buffer, pool):
        super().__init__(verb, buffer, pool)
        if Failing.fails and buffer.dim() == 2:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")


def test_a_failed_capture_costs_the_other_methods_nothing(vae, monkeypatch):
    monkeypatch.setattr(captured, "_Graph", Failing)
    monkeypatch.setattr(Failing, "fails", True)
    fast = made(vae)
    expected = fast.reconstruct(images(2))
    for _ in range(2):  # and it is tried again
        with pytest.raises(
            FastvaeError, match=r"decode for batches of 4 could not be captured .*RuntimeError: operation"
        ):
            fast.decode(torch.zeros(2, LATENT))
    assert torch.equal(fast.reconstruct(images(2)), expected)
    fast.encode(images(2))
    assert Replayed.made[-1].pool != Replayed.made[0].pool  # the failed one's memory is in an unknown state
    monkeypatch.setattr(Failing, "fails", False)
    assert fast.decode(torch.zeros(2, LATENT)).shape == (2, 3, SIZE, SIZE)


def test_threads_that_call_first_capture_once(vae):
    fast, together = made(vae), threading.Barrier(8)

    def call(_) -> torch.Tensor:
        together.wait()
        return fast.reconstruct(images(2))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(call, range(8)))
    assert len(Replayed.made) == 1 and all(torch.equal(y, results[0]) for y in results)


@pytest.mark.parametrize("methods, graphs", [((), 10), (("decode",), 2), (("encode", "reconstruct"), 8)])
def test_after_warming_up_no_call_captures(vae, methods, graphs):
    fast = AcceleratedVAE(vae, made(vae), "captured", torch.device("cpu"), torch.float32, (1, 4))
    fast.warm_up(*methods)
    assert len(Replayed.made) == graphs
    calls = {
        "encode": lambda: (fast.encode(images(3)), fast.encode(pixels(9).permute(0, 2, 3, 1))),
        "decode": lambda: (fast.decode(torch.zeros(5, LATENT)), fast.sample(2)),
        "reconstruct": lambda: (fast(images(1)), fast.reconstruct(pixels(4).permute(0, 2, 3, 1))),
    }
    for method in methods or calls:
        calls[method]()
    assert len(Replayed.made) == graphs
    with pytest.raises(FastvaeError, match="methods out of encode, decode, reconstruct; got 'sample'"):
        fast.warm_up("decode", "sample")


def test_inside_another_capture_it_says_what_to_do(vae, monkeypatch):
    fast = captured.CapturedVAE(vae, torch.float32, (1,), torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(FastvaeError, match="cannot be part of another capture"):
        fast.decode(torch.zeros(1, LATENT))
