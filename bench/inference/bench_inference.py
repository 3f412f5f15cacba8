"""Latency of a VAE: `python -m bench inference`.

Encode, decode and reconstruct, batches of 1, 8, 64 and 512, of tensors on the device and from 8-bit pixels in host
memory to results in host memory; ours as `fastvae.load` gives it and accelerated, against the same VAE of torch's own
modules; each eager, captured in a CUDA graph and compiled. Every result is compared with float64 before timing. A
latency is the time from the call until the results are there. Writes a record (JSON) and the latency curves (PNG)
beside it.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.inference import latency_curve
from bench.inference.contenders import (
    VERBS,
    Form,
    Job,
    caller,
    forms,
    function,
    inputs_of,
    model_of,
    plain_vae,
    trained_vae,
)
from bench.measuring import replay
from bench.measuring.clock import latencies, quantiles
from bench.measuring.closeness import relative_error
from bench.measuring.row import Row
from bench.measuring.tuned import tuned
from bench.reporting import record, suite
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.machine import unlimited_compilations
from fastvae.models import VAE
from fastvae.progress_bar import tqdm

# Calls of each contender by batch; 200 and more give a 99th percentile that means something.
GPU_CALLS = {1: 500, 8: 500, 64: 200, 512: 100}
CPU_CALLS = {1: 200, 8: 40, 64: 8}
# Images whose results are compared with float64.
CHECKED = 8


@dataclass(frozen=True)
class Settings:
    """What is run. `calls` are of each contender by batch, `compiled` the batches that are compiled for."""

    device: str
    width: int
    calls: dict[int, int]
    compiled: tuple[int, ...]
    verbs: tuple[str, ...] = VERBS


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if one of ours fails or computes something else than float64."""
    parser = suite.parser("inference", __doc__)
    parser.add_argument("--batch", type=int, nargs="+", help="1 8 64 512 on a GPU, 1 8 64 on a CPU")
    parser.add_argument("--verb", nargs="+", choices=VERBS, default=VERBS)
    parser.add_argument("--width", type=int, help="of the networks; 32")
    parser.add_argument(
        "--rounds", type=int, help="calls of each contender; by batch, 500 to 100 on a GPU unless given"
    )
    parser.add_argument("--compiled", type=int, nargs="*", help="batches for which reconstruct is compiled, too; 1 64")
    options = suite.parse(parser, arguments, width=1, rounds=1, batch=1)
    default = settings(tiny=options.tiny)
    known = GPU_CALLS if default.device == "cuda" else CPU_CALLS
    batches = options.batch or tuple(default.calls)
    chosen = replace(
        default,
        width=options.width or default.width,
        calls={b: options.rounds or default.calls.get(b) or known.get(b, min(known.values())) for b in batches},
        compiled=default.compiled if options.compiled is None else tuple(options.compiled),
        verbs=tuple(options.verb),
    )
    what = f"latency of a 64x64 VAE on {record.machine()}, calls in turns"
    report = suite.Report(what, extra={"settings": asdict(chosen)})
    if chosen.device == "cpu":
        report.note("no GPU: nothing was captured, batches end at 64")

    def measure_all() -> None:
        for rows in measure(chosen, report):
            report.rows = [row for row in report.rows if row.job != rows[0].job] + rows
            report.keep()
            tqdm.write(table(rows), file=sys.stdout)

    return suite.run(report, options, measure_all, lambda path: latency_curve.draw(report.rows, record.machine(), path))


def settings(*, tiny: bool) -> Settings:
    """For this machine."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if tiny:
        return Settings(device, width=2, calls={1: 3, 2: 2}, compiled=())
    return Settings(device, width=32, calls=GPU_CALLS if device == "cuda" else CPU_CALLS, compiled=(1, 64))


def measure(chosen: Settings, report: suite.Report) -> Iterator[list[Row]]:
    """Checks, then times; rows job by job. Last come the compiled jobs, with all other contenders once more.

    Args:
        chosen: what is run.
        report: gets notes, and a failure for each of ours that fails or is wrong in a job; the others are timed all the
            same.
    """
    vae = trained_vae(chosen.width)
    # The same function for another batch counts as a recompilation.
    with tuned(chosen.device), unlimited_compilations():
        models: dict[Form, VAE | AcceleratedVAE] = {}
        for form in forms(chosen.device, report.note):
            try:
                models[form] = model_of(form, vae, chosen.device, tuple(chosen.calls))
            except Exception as error:
                report.left_out(form.name, error)
        exact = plain_vae(vae).to(chosen.device, torch.float64)
        jobs = [(Job(v, b, host), False) for v in chosen.verbs for b in chosen.calls for host in (False, True)]
        if "reconstruct" in chosen.verbs and any(form.how == "compiled" for form in models):
            jobs += [(Job("reconstruct", b, False), True) for b in chosen.calls if b in chosen.compiled]
            report.note("compiled contenders are timed in reconstruct without host copies alone")
        for job, compiled in tqdm(jobs, desc="inference", file=sys.stderr, disable=None):
            chosen_models = {f: m for f, m in models.items() if compiled or f.how != "compiled"}
            if rows := _measured(job, chosen_models, exact, chosen, report):
                yield rows


def _measured(
    job: Job, models: dict[Form, VAE | AcceleratedVAE], exact: VAE, chosen: Settings, report: suite.Report
) -> list[Row]:
    x = inputs_of(job, exact.latent, chosen.device)
    with torch.inference_mode():
        few = x[:CHECKED].to(chosen.device)
        expected = function(exact, job)(few if few.dtype == torch.uint8 else few.double())
    calls, first_s, allowed = {}, {}, {}
    for form, model in models.items():
        call = None
        start = time.perf_counter()
        try:
            call = caller(form, model, job, x, chosen.device)
            results = call()
            if chosen.device == "cuda":
                torch.cuda.synchronize()
        except Exception as error:  # one that cannot run here must not stop the others
            report.left_out(form.name, error, job.name)
            continue
        first_s[form.name] = time.perf_counter() - start
        error = _error(results, expected)
        if not form.ours and form.how == "eager":
            allowed[form.precision] = error
        # Of a peer half of the digits: beyond that it is another function.
        half = torch.finfo(_DTYPES[form.precision]).eps ** 0.5
        bound = 2 * allowed.get(form.precision, 0.0) + _floor(form, expected) if form.ours else half
        if not error <= bound:
            report.wrong(form.name, f"relative error {error:.3g}, bound {bound:.3g}", job.name)
            continue
        calls[form.name] = call
    drop = partial(report.left_out, job=job.name)
    samples = latencies(calls, rounds=chosen.calls[job.batch], device=chosen.device, drop=drop)
    return [_row(name, job, first_s[name], values) for name, values in samples.items()]


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _error(results: list[Tensor], expected: list[Tensor]) -> float:
    """The worst result's; NaN if one is."""
    pairs = zip(results, expected, strict=True)
    return float(np.max([relative_error(y[: len(exact)].to(exact.device), exact) for y, exact in pairs]))


def _floor(form: Form, expected: list[Tensor]) -> float:
    """An allowance where the plain form happens to have no error; in 8 bits a few pixels may round differently."""
    in_pixels = any(exact.dtype == torch.uint8 for exact in expected)
    return max(1e-3 if in_pixels else 0.0, 4 * torch.finfo(_DTYPES[form.precision]).eps)


def _row(name: str, job: Job, first_s: float, seconds: Sequence[float]) -> Row:
    median, p99 = (round(1e3 * q, 5) for q in quantiles(seconds, (0.5, 0.99)))
    details = {"first_call_s": round(first_s, 2), "p99_ms": p99, "images_per_s": round(1e3 * job.batch / median, 1)}
    return Row.from_seconds(name, seconds, "ms", job=asdict(job), details=details)


def table(rows: Sequence[Row]) -> str:
    """One job, human-readable, speeds as multiples of the best peer's."""
    peers = [row.median for row in rows if not row.is_ours]
    lines = [Job(**rows[0].job).name]
    for row in rows:
        low, high = row.quartiles
        speed = f"  {min(peers) / row.median:6.2f} x best peer" if peers else ""
        lines.append(
            f"  {row.contender:<24} p50 {row.median:9.3f} ms ({low:.3f} to {high:.3f})"
            f"  p99 {row.details['p99_ms']:9.3f} ms  {row.details['images_per_s']:9.1f} images/s{speed}"
        )
    return "\n".join(lines)


@pytest.fixture(scope="module")
def rows(tiny) -> dict[tuple[Job, str], Row]:
    """Every job's contenders, in turns. Without compiling, which takes minutes; the command does it."""
    chosen, report = replace(settings(tiny=tiny), compiled=()), suite.Report("inference")
    measured = {(Job(**row.job), row.contender): row for of_job in measure(chosen, report) for row in of_job}
    assert not report.failures
    return measured


def pytest_generate_tests(metafunc) -> None:
    """A test for each job and contender of this machine."""
    if "contender" in metafunc.fixturenames:
        chosen = settings(tiny=metafunc.config.getoption("--tiny"))
        jobs = [Job(v, b, host) for v in chosen.verbs for b in chosen.calls for host in (False, True)]
        metafunc.parametrize("job", jobs, ids=lambda job: job.name)
        names = [form.name for form in forms(chosen.device, lambda message: None) if form.how != "compiled"]
        metafunc.parametrize("contender", names)


def test_latency(benchmark, rows, job, contender):
    if (job, contender) not in rows:
        pytest.skip("left out; the output above says why")
    benchmark.group = job.name
    replay.hand_over(benchmark, rows[job, contender].seconds)


def test_ours_is_as_fast_as_any_peer(rows, tiny):
    if tiny:
        pytest.skip("too small to tell")
    for job in {job for job, _ in rows}:
        of_job = [row for (other, _), row in rows.items() if other == job]
        ours, peer = (min((r for r in of_job if r.is_ours == own), key=lambda r: r.median) for own in (True, False))
        assert ours.quartiles[0] <= peer.quartiles[1], f"{job.name}: {ours.contender} against {peer.contender}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
