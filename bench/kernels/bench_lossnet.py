"""The frozen loss network's branches: one after the other, in one batch, on two streams: `python -m bench lossnet`.

Features of real and generated images, and these with the feature loss and its gradient at the generated images, which
is all that training asks of the network. Each form is timed eager and compiled; on a GPU the batch of both also with
torch's separate kernels for convolution, bias and ReLU, instead of those that `conv_relu` has chosen: the record's
"machine" says which, and the times of all. All are compared with float64 before timing. With --fp8 it also writes what
8-bit numbers would do (bench/kernels/fp8.py). Writes a record (JSON) and a roofline (PNG) beside it.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from bench.kernels import fp8, roofline
from bench.kernels.bench_kernels import table
from bench.kernels.comparison import OURS_COMPILED, Measurement, rows
from bench.measuring import ceilings, replay
from bench.measuring.ours import OURS
from bench.measuring.row import Row
from bench.reporting import record, suite
from fastvae.kernels import feature_loss, force, provider
from fastvae.kernels.conv_relu import cost
from fastvae.kernels.feature_loss import paper_weights
from fastvae.kernels.winograd import STATED_ERROR
from fastvae.lossnet import TAPS, LossNetwork, load_loss_network
from fastvae.lossnet.network import BLOCKS

WORK = ("features", "features, loss and gradient")

Form = Callable[[LossNetwork, Tensor, Tensor], tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]


def one_after_the_other(network: LossNetwork, images: Tensor, fakes: Tensor):
    """Two calls, as one writes it."""
    with torch.no_grad():
        features = network(images)
    return features, network(fakes)


def on_two_streams(network: LossNetwork, images: Tensor, fakes: Tensor):
    """Two calls that may overlap."""
    here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
    beside.wait_stream(here)
    with torch.cuda.stream(beside), torch.no_grad():
        features = network(images)
    fake_features = network(fakes)
    here.wait_stream(beside)
    return features, fake_features


def measurements(network: LossNetwork, batch: int, size: int, dtype: torch.dtype, device: str) -> Iterator[Measurement]:
    """Both kinds of work for one batch of pairs."""
    generator = torch.Generator().manual_seed(0)
    images, fakes = (
        (torch.rand(batch, 3, size, size, generator=generator) * 2 - 1)
        .to(device)
        .contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    network = network.to(device, memory_format=torch.channels_last)
    exact = copy.deepcopy(network).double()
    if dtype == torch.bfloat16:
        network = copy.deepcopy(network).round_weights_(dtype)
    for work in WORK:
        yield _measurement(work, network, exact, images, fakes, dtype)


def _measurement(
    work: str, network: LossNetwork, exact: LossNetwork, images: Tensor, fakes: Tensor, dtype: torch.dtype
):
    backward = work != WORK[0]
    weights = paper_weights(network.channels)

    def forward(form: Form, network: LossNetwork, images: Tensor, fakes: Tensor):
        features, fake_features = form(network, images, fakes)
        return feature_loss(fake_features, features, weights) if backward else [*features, *fake_features]

    def caller(
        form: Form, network=network, *, compiled=False, kernels: Callable[[], AbstractContextManager] = nullcontext
    ):
        mixed = dtype == torch.bfloat16 and network is not exact
        wide = torch.float64 if network is exact else torch.float32
        real, fake = images.to(wide), fakes.to(wide).detach().requires_grad_(backward)

        def run(real: Tensor, fake: Tensor):
            with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed):
                return forward(form, network, real, fake)

        run = torch.compile(run, fullgraph=True, dynamic=False) if compiled else run

        def call():
            with kernels(), torch.set_grad_enabled(backward):
                result = run(real, fake)
            return [result, *torch.autograd.grad(result, fake)] if backward else result

        return call

    contenders = {
        "two calls": caller(one_after_the_other),
        "two calls, compiled": caller(one_after_the_other, compiled=True),
        OURS: caller(LossNetwork.forward_pair),
        OURS_COMPILED: caller(LossNetwork.forward_pair, compiled=True),
    }
    if images.is_cuda:
        apart = {"kernels": lambda: force("aten", op="conv_relu")}
        contenders["two streams"] = caller(on_two_streams)
        contenders["one batch, separate kernels"] = caller(LossNetwork.forward_pair, **apart)
        contenders["one batch, separate kernels, compiled"] = caller(LossNetwork.forward_pair, compiled=True, **apart)
    flops, moved = least(images.shape[0], images.shape[2], dtype, backward=backward)
    case = f"{images.shape[0]} pairs of {images.shape[2]}x{images.shape[2]}"

    def expected():
        return caller(one_after_the_other)(), caller(one_after_the_other, exact)()

    native = dtype == torch.float32 and provider("conv_relu", images) == "native"
    stated = STATED_ERROR if native else 0.0
    return Measurement("loss network", case, work, dtype, contenders, expected, flops, moved, stated)


def least(batch: int, size: int, dtype: torch.dtype, *, backward: bool) -> tuple[int, int]:
    """FLOPs and bytes of the convolutions alone, 2 `batch` images forwards and `batch` backwards."""
    flops, moved, inputs = 0, 0, 3
    for block in BLOCKS:
        for outputs in block:
            for images in (2 * batch, batch)[: 1 + backward]:
                one = cost(images, inputs, outputs, (size, size), 3, dtype)
                flops, moved = flops + one.flops, moved + one.bytes
            inputs = outputs
        size //= 2
    return flops, moved


def dtype_for(device: str) -> torch.dtype:
    """What training computes in there: bfloat16 where the GPU has it."""
    has_bfloat16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def measure(
    weights: str, batch: int, size: int, rounds: int, measured: ceilings.Ceilings, report: suite.Report
) -> Iterator[list[Row]]:
    """Checks, then times; the rows of each kind of work. The report gets what is left out; see `comparison.rows`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for each in measurements(load_loss_network(weights, taps=TAPS), batch, size, dtype_for(device), device):
        yield rows(each, measured, rounds=rounds, device=device, report=report)


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if ours computes something wrong."""
    parser = suite.parser("lossnet", __doc__)
    parser.add_argument(
        "--vgg", default="random", help="weights, as fastvae train takes them; speed does not depend on it"
    )
    parser.add_argument("--batch", type=int, help="pairs of images; 64 on a GPU, 8 on a CPU")
    parser.add_argument("--rounds", type=int, help="calls of each contender; 50 on a GPU, 10 on a CPU")
    parser.add_argument("--fp8", action="store_true", help="also what 8-bit numbers would cost and save")
    options = suite.parse(parser, arguments, batch=1, rounds=1)
    on_gpu = torch.cuda.is_available()
    batch = options.batch or (1 if options.tiny else 64 if on_gpu else 8)
    rounds = options.rounds or (2 if options.tiny else 50 if on_gpu else 10)
    size = 16 if options.tiny else 64
    report = suite.Report(f"the loss network's branches on {record.machine()}, interleaved, medians of {rounds}")
    if not on_gpu:
        report.note("no GPU: two streams and the kernels of conv_relu were not timed")

    def measure_all() -> None:
        device = "cuda" if on_gpu else "cpu"
        report.ceilings = ceilings.measure(device, [dtype_for(device)], rounds=1 if options.tiny else 10)
        # Compiling takes a minute however small the images are.
        with torch.compiler.set_stance("force_eager" if options.tiny else "default"):
            for results in measure(options.vgg, batch, size, rounds, report.ceilings, report):
                report.rows += results
                report.keep()
                print(table(results))
        if options.fp8:
            report.extra["fp8"] = [asdict(row) for row in fp8.measure(options.vgg, tiny=options.tiny, note=report.note)]

    return suite.run(
        report,
        options,
        measure_all,
        lambda path: roofline.draw(report.rows, report.ceilings, record.machine(), path),
    )


@pytest.fixture(scope="module")
def rows_by_contender(tiny) -> dict[str, Row]:
    """Of the larger work, in turns."""
    batch, size, rounds = (1, 16, 2) if tiny else (64, 64, 50) if torch.cuda.is_available() else (8, 64, 10)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    report = suite.Report("the loss network")
    *_, results = measure("random", batch, size, rounds, ceilings.measure(device, [dtype_for(device)]), report)
    assert not report.failures
    return {row.contender: row for row in results}


@pytest.mark.parametrize("contender", ["two calls", "two calls, compiled", OURS, OURS_COMPILED])
def test_loss_network(benchmark, rows_by_contender, tiny, contender):
    """One batch for both branches, forwards and backwards, takes at most 5 % longer than two calls.

    What it gains on a CPU is in the forward pass. Milliseconds there against two calls: features alone 280 and 318;
    with loss and gradient eager 458 and 438, compiled 450 and 467.
    """
    row = rows_by_contender[contender]
    replay.hand_over(benchmark, row.seconds)
    if row.is_ours and not tiny:
        peer = rows_by_contender[contender.replace(OURS, "two calls")]
        assert row.median <= 1.05 * peer.median
