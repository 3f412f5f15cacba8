"""How fast `VAE.accelerate` is on a CPU: `python -m bench accelerate`.

Reconstruct, width 32, one image and 64, in float32 and in bfloat16, each precision among its own kind: accelerate
against the plain composition eager and compiled, against onnxruntime and OpenVINO of the plain composition and of
fastvae's own exported file, and against designs that fastvae could have chosen instead (folded eager, compiled with
frozen weights, AOTInductor). Every contender runs in a process of its own with the same number of threads; the
processes take turns, and those that wait are stopped. Every result is first compared with float64. Then the engine's
own layers, timed within complete calls, each beside its floors. Writes a record (JSON) and bars (PNG).
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch

from bench.inference import accelerate_bars
from bench.inference.accelerate_contenders import ACCELERATE, ACCELERATE_BF16, CONTENDERS, PEERS, dtype_of
from bench.inference.engine_layers import measure_layers
from bench.inference.engine_layers import table as layer_table
from bench.inference.isolated import Contender, all_ended
from bench.measuring.ceilings import measure as measure_ceilings
from bench.measuring.clock import quantiles
from bench.measuring.row import Row
from bench.measuring.verdicts import Verdict
from bench.reporting import record, suite
from fastvae.inference.accelerated import BOUNDS
from fastvae.machine import choose_precision
from fastvae.progress_bar import tqdm

# By batch: turns of each contender, and calls of a turn that are timed and that come before them untimed.
TURNS = {1: (40, 10, 3), 64: (12, 2, 1)}
# With fewer, the 99th percentile would be the worst call.
ENOUGH_FOR_P99 = 100
# Of one image in float32.
TARGET_MS = 2.0
# Times as fast as the best peer of the same precision, by batch.
TARGET_TIMES = {ACCELERATE: {1: 1.6, 64: 1.5}, ACCELERATE_BF16: {1: 1.3, 64: 1.3}}
# Seconds of timing after a time limit that comes before it: `bench all` kills a suite 10 s after asking it to end.
LAST_S = 4.0


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if ours is wrong or was not measured."""
    parser = suite.parser("accelerate", __doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--contenders", nargs="+", choices=tuple(CONTENDERS), default=tuple(CONTENDERS))
    parser.add_argument("--width", type=int, default=32, help="of the networks; 32")
    options = suite.parse(parser, arguments, batch=1, width=1)
    width = min(options.width, 4) if options.tiny else options.width
    batches = [min(b, 2) for b in options.batch] if options.tiny else options.batch
    settings = {"width": width, "threads": torch.get_num_threads(), "tiny": options.tiny}
    report = suite.Report(
        f"reconstruct of a 64x64 VAE on {record.machine()}, contenders in processes of their own, in turns",
        extra={"settings": settings, "layers": {}},
    )

    def measure_all() -> None:
        names = _that_run_here(options.contenders, report)
        try:
            for batch in dict.fromkeys(batches):
                before = len(report.rows)
                measure(names, batch, width, report, tiny=options.tiny)
                tqdm.write(table(report.rows[before:]), file=sys.stdout)
                report.keep()
        finally:
            report.verdicts = verdicts(report.rows)
        if not report.rows:
            report.fail("not measured: any contender")
        timed = {row.contender for row in report.rows}
        if dtypes := [dtype_of(name) for name in (ACCELERATE, ACCELERATE_BF16) if name in timed]:
            report.ceilings = measure_ceilings("cpu", dtypes, rounds=2 if options.tiny else 10)
            for dtype in dtypes:
                layers = measure_layers(width, dtype, calls=5 if options.tiny else 400, ceilings=report.ceilings)
                report.extra["layers"][_name(dtype)] = [asdict(layer) for layer in layers]
                tqdm.write(f"the engine's layers in {_name(dtype)}\n{layer_table(layers)}", file=sys.stdout)

    return suite.run(
        report, options, measure_all, lambda path: accelerate_bars.draw(report.rows, record.machine(), path)
    )


def _that_run_here(names: Sequence[str], report: suite.Report) -> list[str]:
    """All of them, or those in float32 on a processor without instructions for bfloat16."""
    in_float32 = [name for name in names if dtype_of(name) == torch.float32]
    if len(in_float32) == len(names):
        return in_float32
    precision = choose_precision("auto", torch.device("cpu"))
    if precision.value == "bf16":
        return list(names)
    report.note(f"left out what computes in bfloat16: {precision.reason}")
    return in_float32


def measure(names: Sequence[str], batch: int, width: int, report: suite.Report, *, tiny: bool) -> None:
    """Adds every contender's row for one batch size to the report, even if it is interrupted.

    One that fails or is wrong is noted and costs the others nothing; if it is ours, or if one of fastvae's other
    designs is wrong, it is a failure.

    Raises:
        SystemExit: as the time limit raised it. If it comes while a contender is built, those that are ready are timed
            for `LAST_S` first.
    """
    turns, calls, untimed = (2, 2, 1) if tiny else TURNS.get(batch, TURNS[64])
    threads = torch.get_num_threads()
    ready: list[Contender] = []
    first: dict[str, dict] = {}
    started: list[Contender] = []
    stopped = None
    with all_ended(started):
        to_build = sorted(names, key=_build_order)
        for name in tqdm(to_build, desc=f"building, batch {batch}", file=sys.stderr, disable=None):
            try:
                contender = Contender(name, batch, width, threads, fresh_caches=not tiny)
                started.append(contender)
                first[name] = contender.prepare()
            except RuntimeError as error:
                report.left_out(name, error, f"batch {batch}")
                continue
            except SystemExit as error:
                left_out = ", ".join(to_build[to_build.index(name) :])
                report.note(f"left out at batch {batch}, since the time was over before they were ready: {left_out}")
                stopped = error
                for contender in started:  # one that is still being built would disturb the timing
                    if contender not in ready:
                        contender.end()
                break
            error, bound = first[name]["error"], BOUNDS[dtype_of(name)]
            if not error <= bound:
                message = f"{name} at batch {batch}: relative error {error:.3g}, bound {bound:g}"
                if name in PEERS:
                    report.note(f"left out: {message}")
                else:
                    report.fail(f"WRONG, not timed: {message}")
                continue
            ready.append(contender)
        samples: dict[str, list[float]] = {contender.name: [] for contender in ready}
        limit = time.monotonic() + (LAST_S if stopped else float("inf"))
        try:
            for _ in tqdm(range(turns), desc=f"turns, batch {batch}", file=sys.stderr, disable=None):
                for contender in tuple(ready):
                    try:
                        samples[contender.name] += contender.turn(calls, untimed)
                    except RuntimeError as error:
                        few = f"batch {batch}, after {len(samples[contender.name])} calls"
                        report.left_out(contender.name, error, few)
                        ready.remove(contender)
                if time.monotonic() > limit:
                    break
        finally:
            report.rows += [_row(name, batch, first[name], samples[name]) for name in names if samples.get(name)]
    if stopped:
        raise stopped


def _build_order(name: str) -> int:
    """Ours and the fastest peers first, float32 before bfloat16, and last what takes a compiler minutes.

    A time limit may come while they are built, and then those that are ready are what is compared.
    """
    if any(slow in name for slow in ("compiled", "AOTInductor")):
        return 5
    ours = name in TARGET_TIMES
    if not (ours or name.startswith("exported")):
        return 4
    return 2 * (dtype_of(name) == torch.bfloat16) + (not ours)


def _row(name: str, batch: int, first: dict, seconds: Sequence[float]) -> Row:
    median, p99 = (round(1e3 * q, 5) for q in quantiles(seconds, (0.5, 0.99)))
    details = {
        "first_call_s": round(first["first_call_s"], 2),
        "error": first["error"],
        "p99_ms": p99 if len(seconds) >= ENOUGH_FOR_P99 else None,
        "images_per_s": round(1e3 * batch / median, 1),
    }
    return Row.from_seconds(name, seconds, "ms", job={"batch": batch}, details=details)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """The target in milliseconds, and how many times as fast ours is as the best peer of its precision."""
    judged = []
    for ours in rows:
        name, batch = ours.contender, ours.job["batch"]
        if (name, batch) == (ACCELERATE, 1):
            judged.append(Verdict("reconstruct 1 image", "<=", TARGET_MS, ours.median, ours.quartiles, "ms"))
        target, peer = TARGET_TIMES.get(name, {}).get(batch), _best_peer(rows, ours)
        if target and peer:
            low, high = (peer.median / q for q in reversed(ours.quartiles))
            job = f"{batch} image{'s' if batch > 1 else ''} in {_name(dtype_of(name))}"
            claim = f"{job}: times as fast as the best peer ({peer.contender})"
            judged.append(Verdict(claim, ">=", target, peer.median / ours.median, (low, high)))
    return judged


def _best_peer(rows: Sequence[Row], row: Row) -> Row | None:
    """The fastest one that did the same job in the same precision."""
    dtype = dtype_of(row.contender)
    peers = [r for r in rows if r.contender in PEERS and r.job == row.job and dtype_of(r.contender) == dtype]
    return min(peers, key=lambda r: r.median, default=None)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def table(rows: Sequence[Row]) -> str:
    """One batch size, human-readable, speeds as multiples of the best peer's of the same precision."""
    lines = [f"reconstruct {rows[0].job['batch']}" if rows else "nothing was measured"]
    for row in rows:
        low, high = row.quartiles
        p99, images_per_s, first_call_s = (row.details[key] for key in ("p99_ms", "images_per_s", "first_call_s"))
        slowest = f"p99 {p99:8.3f} ms" if p99 else f"{len(row.samples)} calls"
        peer = _best_peer(rows, row)
        speed = f"  {peer.median / row.median:5.2f} x best peer" if peer else ""
        lines.append(
            f"  {row.contender:<31} p50 {row.median:8.3f} ms ({low:.3f} to {high:.3f})  {slowest:<15}"
            f"  {images_per_s:7.1f} images/s  first call {first_call_s:6.1f} s{speed}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
