"""Images a second of each loader: `python -m bench loader`.

Our loaders against torch's DataLoader with Pillow (bench/loader/peer.py), on JPEGs of 178x218 pixels made on the spot,
read from the page cache, cropped and resized to 64x64, until they are on the device.

All contenders run in one process, in turns, each on an iterator of its own that never ends. While nobody asks one of
them for batches it fills its queue and then rests. So a sample first throws away as many batches as the contender may
have ready, then times the next ones, which come no faster than it makes them; and afterwards waits until its queue must
be full again, so that it takes no time from the next one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from tqdm import trange

from bench.loader import picture as loader_bars
from bench.loader.contenders import OURS, PEER, Contender, Settings, contenders, pillows_pixels
from bench.loader.jpegs import write_jpegs
from bench.measuring import replay
from bench.measuring.clock import quartiles
from bench.reporting import record
from fastvae.data.cores import decoding_threads

# What is claimed, as a ratio to the peer.
CLAIMS = {f"{OURS}packed": 2.0, f"{OURS}resident": 2.0, f"{OURS}DALI on the CPU": 1.0, f"{OURS}DALI on the GPU": 1.0}


@dataclass(frozen=True)
class Row:
    """One contender's result."""

    contender: str
    what: str
    images_per_s: float
    quartiles_images_per_s: tuple[float, float]
    samples_images_per_s: list[float]

    @property
    def is_ours(self) -> bool:
        """Whether it is one of fastvae's loaders."""
        return self.contender.startswith(OURS)


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if one of our loaders brings wrong pixels."""
    parser = argparse.ArgumentParser(
        prog="python -m bench loader", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, help="images of a batch; 64")
    parser.add_argument("--images", type=int, help="JPEGs to make; 2000")
    parser.add_argument("--rounds", type=int, help="samples of each contender; 20 on a GPU, 10 on a CPU")
    parser.add_argument("--workers", type=int, help="decoding threads or processes; one for each core")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes; the figures mean nothing")
    parser.add_argument(
        "--out", type=record.place, help="the record, bench/records/DATE-MACHINE-loader.json unless given"
    )
    options = parser.parse_args(arguments)
    record.exit_on_sigterm()
    chosen = settings(
        tiny=options.tiny,
        batch=options.batch,
        images=options.images,
        rounds=options.rounds,
        workers=options.workers,
    )
    out = options.out or record.path_for("loader")
    record.check_writable(out)
    notes: list[str] = []
    rows: list[Row] = []
    status = 1
    try:
        measure(chosen, notes.append, rows)
        print(table(rows))
        status = 0
    except AssertionError as error:
        notes.append(f"WRONG, not timed: {error}")
    finally:  # whatever ends it, what is known stays
        what = f"images a second of each loader on {record.machine()}, 178x218 JPEGs to 64x64, interleaved"
        record.write(out, what=what, rows=rows, notes=notes, extra={"settings": asdict(chosen)})
    if rows:
        loader_bars.draw(rows, f"Loaders on {record.machine()}", out.with_suffix(".png"))
    for words in notes:
        print(f"note: {words}")
    print(f"{out} written")
    return status


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


def measure(chosen: Settings, note: Callable[[str], None], rows: list[Row]) -> None:
    """Makes the JPEGs, checks every contender's first batch, then times.

    Args:
        chosen: what is loaded.
        note: told, in words, what is left out and why.
        rows: gets one for each contender that is right, whatever ends the run.

    Raises:
        AssertionError: one of ours brings other pixels than it should.
    """
    with tempfile.TemporaryDirectory(prefix="fastvae-bench-") as folder:
        paths = write_jpegs(Path(folder) / "jpegs", chosen.images)
        taking_part = _right_ones(contenders(paths, Path(folder), chosen, note), pillows_pixels(paths, chosen), note)
        samples = {name: [] for name in taking_part}
        try:
            for _ in trange(chosen.rounds, desc="rounds", file=sys.stderr, disable=None):
                for name, contender in taking_part.items():
                    samples[name].append(_images_per_s(contender, chosen))
        finally:
            rows += [_row(name, taking_part[name].what, values) for name, values in samples.items() if values]
            for contender in taking_part.values():
                contender.close()


def _row(name: str, what: str, values: list[float]) -> Row:
    low, median, high = quartiles(values)
    return Row(
        contender=name,
        what=what,
        images_per_s=round(median, 1),
        quartiles_images_per_s=(round(low, 1), round(high, 1)),
        samples_images_per_s=[round(value, 1) for value in values],
    )


def _right_ones(found: dict[str, Contender], expected, note: Callable[[str], None]) -> dict[str, Contender]:
    right = {}
    for name, contender in found.items():
        if contender.is_right(next(contender.batches).cpu().numpy(), expected):
            right[name] = contender
        elif name.startswith(OURS):
            raise AssertionError(f"{name} brings other pixels than Pillow")
        else:
            note(f"left out: {name} brings other pixels than Pillow")
    return right


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


def table(rows: list[Row]) -> str:
    """For people."""
    peer = next((row.images_per_s for row in rows if row.contender == PEER), None)
    lines = []
    for row in rows:
        low, high = row.quartiles_images_per_s
        ratio = f"{row.images_per_s / peer:8.2f} x" if peer else ""
        lines.append(
            f"{row.contender:<28}{row.images_per_s:12,.0f} images/s ({low:,.0f} to {high:,.0f}){ratio}  {row.what}"
        )
    return "\n".join(lines)


@pytest.fixture(scope="module")
def rows(tiny) -> dict[str, Row]:
    """All contenders' samples, taken in turns."""
    found: list[Row] = []
    measure(settings(tiny=tiny), print, found)
    return {row.contender: row for row in found}


@pytest.mark.parametrize("name", [PEER, *CLAIMS, f"{OURS}Pillow"])
def test_loader(benchmark, rows, tiny, name):
    """Seconds a batch; ours must be as many times as fast as the peer as is claimed."""
    if name not in rows:
        pytest.skip("not on this machine")
    replay.hand_over(benchmark, [settings(tiny=tiny).batch / value for value in rows[name].samples_images_per_s])
    if name in CLAIMS and not tiny:
        assert rows[name].images_per_s >= CLAIMS[name] * rows[PEER].images_per_s
