"""Whether `VAE.accelerate` can serve for long: `python -m bench soak`.

So many calls of reconstruct, one image each, from a rotating set; every result must be the one that its image had
first, bit for bit, and the process's memory must stay where it was. Then eight threads call at once, with batches of
their own, and every answer must be theirs. Writes a record (JSON) and memory against calls (PNG) beside it.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from bench.inference.contenders import smooth_images, trained_vae
from bench.measuring.verdicts import Verdict
from bench.reporting import record

CALLS, IMAGES, THREADS = 200_000, 16, 8
# Python and the allocators breathe a little; 64 bytes lost a call would be 6 MiB between the quarters' medians.
ALLOWED_MIB = 4.0
# So that breathing by a page or two does not fill the picture.
_LEAST_SPAN_MIB = 20.0


@dataclass(frozen=True)
class Row:
    """The process after so many calls; `wrong` of them had another result than their image had first."""

    calls: int
    seconds: float
    memory_mib: float
    wrong: int


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if memory grew or a result changed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--width", type=int, default=32, help="of the networks; 32")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    parser.add_argument(
        "--out", type=record.place, help="the record, bench/records/DATE-MACHINE-soak.json unless given"
    )
    options = parser.parse_args(arguments)
    if options.calls < 100 or options.width < 1:
        parser.error("--calls must be 100 or more, --width 1 or more")
    out = options.out or record.path_for("soak")
    record.check_writable(out)
    record.exit_on_sigterm()
    calls, width = (400, 2) if options.tiny else (options.calls, options.width)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = trained_vae(width).to(device).accelerate(batch_sizes=(1, 3))
    rows: list[Row] = []
    found: list[Verdict] = []
    try:
        serve(fast, calls, rows)
        found = verdicts(rows)
        wrong = wrong_from_threads(fast, rounds=5 if options.tiny else 200)
        found.append(Verdict(f"wrong answers to {THREADS} threads", "<=", 0, wrong, (wrong, wrong)))
    finally:  # whatever ends it, what was seen stays
        extra = {
            "settings": {"calls": calls, "width": width, "threads": THREADS, "model": repr(fast)},
            "verdicts": [asdict(v) | {"line": str(v)} for v in found],
        }
        what = f"calls of VAE.accelerate's reconstruct, one after the other, on {record.machine()}"
        record.write(out, what=what, rows=rows, notes=[], extra=extra)
        if rows:
            limit = warm_mib(rows) + ALLOWED_MIB if found else None
            draw(rows, limit, record.machine(), out.with_suffix(".png"))
    for verdict in found:
        print(verdict)
    print(f"{out} written, and the curve beside it")
    return 0 if all(v.passes for v in found) else 1


def serve(fast, calls: int, rows: list[Row], samples: int = 200) -> None:
    """Calls and compares; adds to `rows` now and then, and at the end."""
    images = [x[None].to(fast.device) for x in smooth_images(IMAGES)]
    first = [fast.reconstruct(x) for x in images]
    wrong, start, every = 0, time.perf_counter(), max(calls // samples, 1)
    for i in tqdm(range(calls), desc="soak", file=sys.stderr, disable=None, mininterval=2):
        wrong += not torch.equal(fast.reconstruct(images[i % IMAGES]), first[i % IMAGES])
        if (i + 1) % every == 0 or i + 1 == calls:
            rows.append(Row(i + 1, round(time.perf_counter() - start, 2), round(memory_mib(), 2), wrong))


def verdicts(rows: list[Row]) -> list[Verdict]:
    """Memory of the last quarter against the second one, as the first warms up; and results that changed."""
    warm = warm_mib(rows)
    late = [row.memory_mib - warm for row in rows[-max(len(rows) // 4, 1) :]]
    wrong = rows[-1].wrong
    return [
        Verdict(
            f"memory grown over {rows[-1].calls:,} calls, MiB", "<=", ALLOWED_MIB, median(late), (min(late), max(late))
        ),
        Verdict(f"results that changed in {rows[-1].calls:,} calls", "<=", 0, wrong, (wrong, wrong)),
    ]


def warm_mib(rows: list[Row]) -> float:
    """The median memory of the second quarter."""
    quarter = max(len(rows) // 4, 1)
    return median(row.memory_mib for row in rows[quarter : 2 * quarter])


def wrong_from_threads(fast, rounds: int) -> int:
    """How many answers to threads that call at once are not those that each would get alone."""
    batches = [smooth_images(1 + i % 4).to(fast.device) for i in range(THREADS)]
    expected = [fast.reconstruct(x) for x in batches]
    together = threading.Barrier(THREADS)

    def wrong(i: int) -> int:
        together.wait()
        return sum(not torch.equal(fast.reconstruct(batches[i]), expected[i]) for _ in range(rounds))

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(wrong, range(THREADS)))


def memory_mib() -> float:
    """What the process holds of the machine's memory now, and torch of the GPU's."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        held = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    else:  # not Linux
        command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
        held = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 2**10
    return (held + (torch.cuda.memory_reserved() if torch.cuda.is_available() else 0)) / 2**20


def draw(rows: list[Row], limit_mib: float | None, title: str, path: Path) -> None:
    """Writes a PNG.

    Args:
        rows: of one soak.
        limit_mib: what the median of the last quarter may reach, if it came to that.
        title: the machine.
        path: of the picture.
    """
    figure, panel = plt.subplots(figsize=(7, 3.6), dpi=110, layout="constrained")
    memory = [row.memory_mib for row in rows]
    panel.plot([row.calls for row in rows], memory, color="tab:orange", label="memory of the process")
    if limit_mib is not None:
        quarter = rows[-max(len(rows) // 4, 1)].calls, rows[-1].calls
        panel.plot(quarter, (limit_mib, limit_mib), "--", color="0.4", label="limit for the median of the last quarter")
    low, high = min(memory), max(*memory, limit_mib or 0)
    spare = max(_LEAST_SPAN_MIB - (high - low), 0.2 * (high - low)) / 2
    panel.set(xlabel="calls of reconstruct", ylabel="MiB", title=title, ylim=(low - spare, high + spare))
    panel.xaxis.set_major_formatter(lambda calls, _: f"{calls:,.0f}")
    panel.yaxis.get_major_formatter().set_useOffset(False)
    panel.grid(alpha=0.3, linewidth=0.5)
    panel.legend()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
