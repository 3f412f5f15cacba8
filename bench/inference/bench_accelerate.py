"""What `VAE.accelerate` is worth on a CPU: `python -m bench accelerate`.

Reconstruct, float32, width 32, one image and 64: accelerate against the plain composition eager, compiled and in
onnxruntime, against onnxruntime of fastvae's own exported file, and against the other ways that fastvae could have gone
(folded eager, compiled with frozen weights, AOTInductor). Every contender runs in a process of its own with the same
number of threads; the processes take turns, and those that wait are stopped. Every result is held to float64 first.
Then the engine's own layers, timed within whole calls, each beside its floors. Writes a record (JSON) and bars (PNG).
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from tqdm import tqdm

from bench.inference import accelerate_bars
from bench.inference.accelerate_contenders import CONTENDERS, OURS, PEERS
from bench.inference.engine_layers import LayerRow, measure_layers
from bench.inference.engine_layers import table as layer_table
from bench.inference.isolated import Contender, all_ended
from bench.measuring.ceilings import measure as measure_ceilings
from bench.measuring.clock import quantiles
from bench.measuring.verdicts import Verdict
from bench.reporting import record

# By batch: turns of each contender, and calls of a turn that are timed and that come before them untimed.
TURNS = {1: (40, 10, 3), 64: (12, 2, 1)}
# With fewer, the 99th percentile would be the worst call.
ENOUGH_FOR_P99 = 100
TARGET_MS, TARGET_TIMES = 2.0, 2.0
# Relative, of the whole result: float32 in another order, through 23 layers.
BOUND = 1e-5


@dataclass(frozen=True)
class Row:
    """One contender's latency for one batch size."""

    contender: str
    batch: int
    first_call_s: float
    error: float
    median_ms: float
    quartiles_ms: tuple[float, float]
    p99_ms: float | None
    images_per_s: float
    samples_ms: list[float]


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if ours is wrong or was not measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench accelerate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--contenders", nargs="+", choices=tuple(CONTENDERS), default=tuple(CONTENDERS))
    parser.add_argument("--width", type=int, default=32, help="of the networks; 32")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes; the figures mean nothing")
    parser.add_argument(
        "--out", type=record.place, help="the record, bench/records/DATE-MACHINE-accelerate.json unless given"
    )
    options = parser.parse_args(arguments)
    if min(options.batch) < 1 or options.width < 1:
        parser.error("--batch and --width must be 1 or more")
    out = options.out or record.path_for("accelerate")
    record.check_writable(out)
    record.exit_on_sigterm()
    width = min(options.width, 4) if options.tiny else options.width
    batches = [min(b, 2) for b in options.batch] if options.tiny else options.batch
    notes: list[str] = []
    rows: list[Row] = []
    layers: list[LayerRow] = []
    ceilings, status = None, 1
    try:
        for batch in dict.fromkeys(batches):
            before = len(rows)
            measure(options.contenders, batch, width, notes.append, rows, tiny=options.tiny)
            tqdm.write(table(rows[before:]), file=sys.stdout)
        if OURS in options.contenders:
            ceilings = measure_ceilings("cpu", [torch.float32], rounds=2 if options.tiny else 10)
            layers = measure_layers(width, calls=5 if options.tiny else 400, ceilings=ceilings)
            tqdm.write(layer_table(layers), file=sys.stdout)
        status = 0 if rows and (OURS not in options.contenders or any(r.contender == OURS for r in rows)) else 1
    except AssertionError as error:
        notes.append(f"WRONG: {error}")
    finally:  # whatever ends it, what was measured stays
        found = verdicts(rows)
        extra = {
            "settings": {"width": width, "threads": torch.get_num_threads(), "tiny": options.tiny},
            "verdicts": [asdict(v) | {"line": str(v)} for v in found],
            "layers": [asdict(row) for row in layers],
        }
        what = f"reconstruct of a 64x64 VAE on {record.machine()}, contenders in processes of their own, in turns"
        record.write(out, what=what, rows=rows, notes=notes, ceilings=ceilings, extra=extra)
        if rows:
            accelerate_bars.draw(rows, record.machine(), out.with_suffix(".png"))
    for words in (*map(str, found), *(f"note: {words}" for words in notes)):
        print(words)
    print(f"{out} written" + (", and the bars beside it" if rows else ""))
    return status


def measure(
    names: Sequence[str], batch: int, width: int, note: Callable[[str], None], rows: list[Row], *, tiny: bool
) -> None:
    """Adds every contender's row for one batch size to `rows`, whatever ends it.

    Raises:
        AssertionError: a result of fastvae's own is wrong.
    """
    turns, calls, untimed = (2, 2, 1) if tiny else TURNS.get(batch, TURNS[64])
    threads = torch.get_num_threads()
    ready: list[Contender] = []
    first: dict[str, dict] = {}
    started: list[Contender] = []
    with all_ended(started):
        for name in tqdm(names, desc=f"building, batch {batch}", file=sys.stderr, disable=None):
            contender = Contender(name, batch, width, threads)
            started.append(contender)
            try:
                first[name] = contender.prepare()
            except RuntimeError as error:
                note(f"left out at batch {batch}: {name}: {error}")
                continue
            if not first[name]["error"] <= BOUND:
                words = f"{name} at batch {batch}: relative error {first[name]['error']:.3g}, bound {BOUND:g}"
                if name not in PEERS:
                    raise AssertionError(words)
                note(f"left out: {words}")
                continue
            ready.append(contender)
        samples: dict[str, list[float]] = {contender.name: [] for contender in ready}
        try:
            for _ in tqdm(range(turns), desc=f"turns, batch {batch}", file=sys.stderr, disable=None):
                for contender in tuple(ready):
                    try:
                        samples[contender.name] += contender.turn(calls, untimed)
                    except RuntimeError as error:
                        note(f"batch {batch}: {contender.name} has only {len(samples[contender.name])} calls: {error}")
                        ready.remove(contender)
        finally:
            rows += [_row(name, batch, first[name], seconds) for name, seconds in samples.items() if seconds]


def _row(name: str, batch: int, first: dict, seconds: list[float]) -> Row:
    low, median, high, p99 = (round(1e3 * q, 5) for q in quantiles(seconds, (0.25, 0.5, 0.75, 0.99)))
    return Row(
        contender=name,
        batch=batch,
        first_call_s=round(first["first_call_s"], 2),
        error=first["error"],
        median_ms=median,
        quartiles_ms=(low, high),
        p99_ms=p99 if len(seconds) >= ENOUGH_FOR_P99 else None,
        images_per_s=round(1e3 * batch / median, 1),
        samples_ms=[round(1e3 * s, 5) for s in seconds],
    )


def verdicts(rows: list[Row]) -> list[Verdict]:
    """On one image: the target in milliseconds, and how many times as fast as the best peer."""
    of_one = {row.contender: row for row in rows if row.batch == 1}
    if OURS not in of_one:
        return []
    ours = of_one[OURS]
    found = [Verdict("reconstruct 1 image, ms", "<=", TARGET_MS, ours.median_ms, ours.quartiles_ms)]
    if peers := [of_one[name] for name in PEERS if name in of_one]:
        best = min(peers, key=lambda row: row.median_ms)
        low, high = (best.median_ms / q for q in reversed(ours.quartiles_ms))
        claim = f"times as fast as the best peer ({best.contender})"
        found.append(Verdict(claim, ">=", TARGET_TIMES, best.median_ms / ours.median_ms, (low, high)))
    return found


def table(rows: list[Row]) -> str:
    """One batch size for people: speeds as multiples of the best peer's."""
    peers = [row.median_ms for row in rows if row.contender in PEERS]
    lines = [f"reconstruct {rows[0].batch}" if rows else "nothing was measured"]
    for row in rows:
        low, high = row.quartiles_ms
        p99 = f"p99 {row.p99_ms:8.3f} ms" if row.p99_ms else f"{len(row.samples_ms)} calls"
        speed = f"  {min(peers) / row.median_ms:5.2f} x best peer" if peers else ""
        lines.append(
            f"  {row.contender:<27} p50 {row.median_ms:8.3f} ms ({low:.3f} to {high:.3f})  {p99:<15}"
            f"  {row.images_per_s:7.1f} images/s  first call {row.first_call_s:6.1f} s{speed}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
