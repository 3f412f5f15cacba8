"""How fast `VAE.accelerate` is on a CPU: `python -m bench accelerate`.

Reconstruct, float32, width 32, one image and 64: accelerate against the plain composition eager, compiled and in
onnxruntime, against onnxruntime of fastvae's own exported file, and against designs that fastvae could have chosen
instead (folded eager, compiled with frozen weights, AOTInductor). Every contender runs in a process of its own with the
same number of threads; the processes take turns, and those that wait are stopped. Every result is first compared with
float64. Then the engine's own layers, timed within complete calls, each beside its floors. Writes a record (JSON) and
bars (PNG).
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch

from bench.inference import accelerate_bars
from bench.inference.accelerate_contenders import ACCELERATE, CONTENDERS, PEERS
from bench.inference.engine_layers import measure_layers
from bench.inference.engine_layers import table as layer_table
from bench.inference.isolated import Contender, all_ended
from bench.measuring.ceilings import measure as measure_ceilings
from bench.measuring.clock import quantiles
from bench.measuring.row import Row
from bench.measuring.verdicts import Verdict
from bench.reporting import record, suite
from fastvae.progress_bar import tqdm

# By batch: turns of each contender, and calls of a turn that are timed and that come before them untimed.
TURNS = {1: (40, 10, 3), 64: (12, 2, 1)}
# With fewer, the 99th percentile would be the worst call.
ENOUGH_FOR_P99 = 100
TARGET_MS, TARGET_TIMES = 2.0, 2.0
# Relative, of the complete result: float32 in another order, through 23 layers.
BOUND = 1e-5
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
        extra={"settings": settings, "layers": []},
    )

    def measure_all() -> None:
        try:
            for batch in dict.fromkeys(batches):
                before = len(report.rows)
                measure(options.contenders, batch, width, report, tiny=options.tiny)
                tqdm.write(table(report.rows[before:]), file=sys.stdout)
                report.keep()
        finally:
            report.verdicts = verdicts(report.rows)
        if not report.rows:
            report.fail("not measured: any contender")
        if ACCELERATE in options.contenders:
            report.ceilings = measure_ceilings("cpu", [torch.float32], rounds=2 if options.tiny else 10)
            layers = measure_layers(width, calls=5 if options.tiny else 400, ceilings=report.ceilings)
            report.extra["layers"] = [asdict(layer) for layer in layers]
            tqdm.write(layer_table(layers), file=sys.stdout)

    return suite.run(
        report, options, measure_all, lambda path: accelerate_bars.draw(report.rows, record.machine(), path)
    )


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
            if not first[name]["error"] <= BOUND:
                message = f"{name} at batch {batch}: relative error {first[name]['error']:.3g}, bound {BOUND:g}"
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
    """Ours first and what takes a compiler minutes last, since a time limit may come while they are built."""
    return 0 if name == ACCELERATE else 1 + name.endswith(("compiled", "AOTInductor"))


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
    """On one image: the target in milliseconds, and how many times as fast as the best peer."""
    of_one = {row.contender: row for row in rows if row.job["batch"] == 1}
    if ACCELERATE not in of_one:
        return []
    ours = of_one[ACCELERATE]
    judged = [Verdict("reconstruct 1 image", "<=", TARGET_MS, ours.median, ours.quartiles, "ms")]
    if peers := [of_one[name] for name in PEERS if name in of_one]:
        best = min(peers, key=lambda row: row.median)
        low, high = (best.median / q for q in reversed(ours.quartiles))
        name = f"times as fast as the best peer ({best.contender})"
        judged.append(Verdict(name, ">=", TARGET_TIMES, best.median / ours.median, (low, high)))
    return judged


def table(rows: Sequence[Row]) -> str:
    """One batch size, human-readable, speeds as multiples of the best peer's."""
    peers = [row.median for row in rows if row.contender in PEERS]
    lines = [f"reconstruct {rows[0].job['batch']}" if rows else "nothing was measured"]
    for row in rows:
        low, high = row.quartiles
        p99, images_per_s, first_call_s = (row.details[key] for key in ("p99_ms", "images_per_s", "first_call_s"))
        slowest = f"p99 {p99:8.3f} ms" if p99 else f"{len(row.samples)} calls"
        speed = f"  {min(peers) / row.median:5.2f} x best peer" if peers else ""
        lines.append(
            f"  {row.contender:<27} p50 {row.median:8.3f} ms ({low:.3f} to {high:.3f})  {slowest:<15}"
            f"  {images_per_s:7.1f} images/s  first call {first_call_s:6.1f} s{speed}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
