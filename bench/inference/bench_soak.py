"""Whether `VAE.accelerate` can serve for long: `python -m bench soak`.

Eight threads call at once, with batches of their own, and every thread must get the answers to its own. Then many calls
of reconstruct, one image each, from a rotating set: every result must be bit for bit the first one of its image, and
the process's memory must not grow. Writes a record (JSON) and memory against calls (PNG) beside it.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from bench.inference.contenders import smooth_images, trained_vae
from bench.measuring.verdicts import Verdict
from bench.reporting import record, suite
from fastvae.charts import pyplot, save_chart
from fastvae.progress_bar import tqdm

plt = pyplot()

CALLS, IMAGES, THREADS = 200_000, 16, 8
# Python and the allocators vary a little; 64 bytes lost a call would be 6 MiB between the quarters' medians.
ALLOWED_MIB = 4.0
# Fewer say nothing about memory, since the first quarter warms up.
_LEAST_READINGS = 8
# Seconds of calls that a crash may cost.
_KEEP_S = 5.0
# So that a page or two more or less does not fill the picture.
_LEAST_SPAN_MIB = 20.0


@dataclass(frozen=True)
class Reading:
    """The process after so many calls; `wrong` of them had another result than the first of their image."""

    calls: int
    seconds: float
    memory_mib: float
    wrong: int


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if memory grew or a result changed."""
    parser = suite.parser("soak", __doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--width", type=int, default=32, help="of the networks; 32")
    options = suite.parse(parser, arguments, calls=100, width=1)
    calls, width = (400, 2) if options.tiny else (options.calls, options.width)
    settings = {"calls": calls, "width": width, "threads": THREADS}
    report = suite.Report(
        f"calls of VAE.accelerate's reconstruct, one after the other, on {record.machine()}",
        extra={"settings": settings},
    )

    def measure_all() -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        fast = trained_vae(width).to(device).accelerate(batch_sizes=(1, 3))
        settings["model"] = repr(fast)
        wrong = wrong_from_threads(fast, rounds=5 if options.tiny else 200)
        of_threads = Verdict(f"wrong answers to {THREADS} threads", "<=", 0, wrong, (wrong, wrong))
        try:
            serve(fast, calls, report)
        finally:  # fewer calls after a time limit; the verdicts say how many
            report.verdicts = [*verdicts(report.rows), of_threads]

    def draw_memory(path: Path) -> None:
        limit = warm_mib(report.rows) + ALLOWED_MIB if len(report.rows) >= _LEAST_READINGS else None
        draw(report.rows, limit, record.machine(), path)

    status = suite.run(report, options, measure_all, draw_memory)
    return status or int(not all(verdict.passes for verdict in report.verdicts))


def serve(fast, calls: int, report: suite.Report, samples: int = 200) -> None:
    """Calls and compares; adds a reading to the report's rows at intervals, and at the end. It is kept in between."""
    images = [x[None].to(fast.device) for x in smooth_images(IMAGES)]
    first = [fast.reconstruct(x) for x in images]
    wrong, start, every = 0, time.perf_counter(), max(calls // samples, 1)
    for i in tqdm(range(calls), desc="soak", file=sys.stderr, disable=None, mininterval=2):
        wrong += not torch.equal(fast.reconstruct(images[i % IMAGES]), first[i % IMAGES])
        if (i + 1) % every == 0 or i + 1 == calls:
            seconds, memory = time.perf_counter() - start, memory_mib()
            report.rows.append(Reading(i + 1, round(seconds, 2), round(memory, 2), wrong))
            report.keep(_KEEP_S)


def verdicts(rows: Sequence[Reading]) -> list[Verdict]:
    """Memory of the last quarter against the second one, as the first warms up; and results that changed."""
    if not rows:
        return []
    calls, wrong = rows[-1].calls, rows[-1].wrong
    judged = [Verdict(f"results that changed in {calls:,} calls", "<=", 0, wrong, (wrong, wrong))]
    if len(rows) >= _LEAST_READINGS:
        warm = warm_mib(rows)
        grown = [row.memory_mib - warm for row in rows[-max(len(rows) // 4, 1) :]]
        spread = min(grown), max(grown)
        name = f"memory grown over {calls:,} calls"
        judged.insert(0, Verdict(name, "<=", ALLOWED_MIB, median(grown), spread, "MiB"))
    return judged


def warm_mib(rows: Sequence[Reading]) -> float:
    """The median memory of the second quarter."""
    quarter = max(len(rows) // 4, 1)
    return median(row.memory_mib for row in rows[quarter : 2 * quarter])


def wrong_from_threads(fast, rounds: int) -> int:
    """How many answers to threads that call at once differ from those that each would get alone."""
    batches = [smooth_images(1 + i % 4).to(fast.device) for i in range(THREADS)]
    expected = [fast.reconstruct(x) for x in batches]
    together = threading.Barrier(THREADS)

    def wrong(i: int) -> int:
        together.wait()
        return sum(not torch.equal(fast.reconstruct(batches[i]), expected[i]) for _ in range(rounds))

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(wrong, range(THREADS)))


def memory_mib() -> float:
    """Memory of the machine that the process holds now, and of the GPU that torch does."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        held = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    else:  # not Linux
        command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
        held = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 2**10
    return (held + (torch.cuda.memory_reserved() if torch.cuda.is_available() else 0)) / 2**20


def draw(rows: Sequence[Reading], limit_mib: float | None, title: str, path: Path) -> None:
    """Writes a PNG.

    Args:
        rows: of one soak.
        limit_mib: for the median of the last quarter; None if there are too few readings for a verdict.
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
    save_chart(figure, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
