"""Images a second of each loader: `python -m bench loader`.

Our loaders against torch's DataLoader with Pillow (bench/loader/peer.py), on JPEGs of 178x218 pixels made on the spot,
read from the page cache, cropped and resized to 64x64, until they are on the device.

All contenders run in one process, in turns, each on an endless iterator of its own. A contender that is not asked for
batches fills its queue and then rests. So a sample first discards as many batches as the contender may have ready, then
times the next ones, which come no faster than it makes them, and afterwards waits until its queue must be full again,
so that it takes no time from the next contender.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from bench.loader import picture
from bench.loader.contenders import PEER, PREFIX, Contender, Settings, contenders, pillows_pixels
from bench.loader.jpegs import write_jpegs
from bench.measuring import replay
from bench.measuring.row import Row
from bench.reporting import record, suite
from fastvae.data.cores import decoding_threads
from fastvae.progress_bar import tqdm

# Times as fast as the peer that ours must be.
CLAIMS = {
    f"{PREFIX}packed": 2.0,
    f"{PREFIX}resident": 2.0,
    f"{PREFIX}DALI on the CPU": 1.0,
    f"{PREFIX}DALI on the GPU": 1.0,
}

# Seconds of samples that a crash may cost.
_KEEP_S = 5.0


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if one of our loaders returns wrong pixels."""
    parser = suite.parser("loader", __doc__)
    parser.add_argument("--batch", type=int, help="images of a batch; 64")
    parser.add_argument("--images", type=int, help="JPEGs to make; 2000")
    parser.add_argument("--rounds", type=int, help="samples of each contender; 20 on a GPU, 10 on a CPU")
    parser.add_argument("--workers", type=int, help="decoding threads or processes; one for each core")
    options = suite.parse(parser, arguments, batch=1, images=1, rounds=1, workers=1)
    chosen = settings(
        tiny=options.tiny,
        batch=options.batch,
        images=options.images,
        rounds=options.rounds,
        workers=options.workers,
    )
    report = suite.Report(
        f"images a second of each loader on {record.machine()}, 178x218 JPEGs to 64x64, interleaved",
        extra={"settings": asdict(chosen)},
    )

    def measure_all() -> None:
        measure(chosen, report)
        print(table(report.rows))

    title = f"Loaders on {record.machine()}"
    return suite.run(report, options, measure_all, lambda path: picture.draw(report.rows, title, path))


def settings(
    *,
    tiny: bool,
    batch: int | None = None,
    images: int | None = None,
    rounds: int | None = None,
    workers: int | None = None,
) -> Settings:
    """What is loaded on this machine."""
    has_gpu = torch.cuda.is_available()
    batch = batch or (8 if tiny else 64)
    return Settings(
        device="cuda" if has_gpu else "cpu",
        size=64,
        batch=batch,
        workers=decoding_threads(workers),
        batches=4 if tiny else 64 if has_gpu else 16,
        rounds=rounds or (2 if tiny else 20 if has_gpu else 10),
        images=max(images or (2 * batch if tiny else 2000), batch),
    )


def measure(chosen: Settings, report: suite.Report) -> None:
    """Makes the JPEGs, checks every contender's first batch, then times.

    Args:
        chosen: what is loaded.
        report: gets a row for each contender that is right, even if the run is interrupted, and a note about each that
            is left out. It is kept in between.

    Raises:
        AssertionError: one of ours returns other pixels than it should.
    """
    with tempfile.TemporaryDirectory(prefix="fastvae-bench-") as folder:
        paths = write_jpegs(Path(folder) / "jpegs", chosen.images)
        made = contenders(paths, Path(folder), chosen, report.note)
        validated = _validated(made, pillows_pixels(paths, chosen), report.note)
        samples = {name: [] for name in validated}

        def keep(every_s: float = 0.0) -> None:
            report.rows[:] = [
                Row(name, "images_per_s", values, details={"what": validated[name].what})
                for name, values in samples.items()
                if values
            ]
            report.keep(every_s)

        try:
            for _ in tqdm(range(chosen.rounds), desc="rounds", file=sys.stderr, disable=None):
                for name, contender in validated.items():
                    samples[name].append(_images_per_s(contender, chosen))
                    keep(_KEEP_S)
        finally:
            keep()
            for contender in validated.values():
                contender.close()


def _validated(made: dict[str, Contender], expected, note: Callable[[str], None]) -> dict[str, Contender]:
    """Those whose first batch is what it should be, given Pillow's pixels."""
    validated = {}
    for name, contender in made.items():
        if contender.is_right(next(contender.batches).cpu().numpy(), expected):
            validated[name] = contender
        elif name.startswith(PREFIX):
            raise AssertionError(f"{name} returns other pixels than Pillow")
        else:
            note(f"left out: {name} returns other pixels than Pillow")
    return validated


def _images_per_s(contender: Contender, chosen: Settings) -> float:
    """One sample."""
    for _ in range(contender.ahead):
        next(contender.batches)
    _finish(chosen)
    start = time.perf_counter()
    for _ in range(chosen.batches):
        next(contender.batches)
    _finish(chosen)
    seconds = time.perf_counter() - start
    # Twice what filling its queue takes.
    time.sleep(2 * contender.ahead * seconds / chosen.batches)
    return chosen.batches * chosen.batch / seconds


def _finish(chosen: Settings) -> None:
    if chosen.device == "cuda":
        torch.cuda.synchronize()


def table(rows: Sequence[Row]) -> str:
    """Human-readable, speeds as multiples of the peer's."""
    peer = next((row.median for row in rows if row.contender == PEER), None)
    lines = []
    for row in rows:
        low, high = row.quartiles
        ratio = f"{row.median / peer:8.2f} x" if peer else ""
        what = row.details["what"]
        lines.append(f"{row.contender:<28}{row.median:12,.0f} images/s ({low:,.0f} to {high:,.0f}){ratio}  {what}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def rows(tiny) -> dict[str, Row]:
    """All contenders' samples, taken in turns."""
    report = suite.Report("loaders")
    measure(settings(tiny=tiny), report)
    return {row.contender: row for row in report.rows}


@pytest.mark.parametrize("name", [PEER, *CLAIMS, f"{PREFIX}Pillow"])
def test_loader(benchmark, rows, tiny, name):
    """Seconds a batch; ours must be as many times as fast as the peer as is claimed."""
    if name not in rows:
        pytest.skip("not on this machine")
    replay.hand_over(benchmark, [settings(tiny=tiny).batch / value for value in rows[name].samples])
    if name in CLAIMS and not tiny:
        assert rows[name].median >= CLAIMS[name] * rows[PEER].median
