"""`fastvae latency RUN`: the latency of a trained VAE on this machine."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from fastvae.cli.parsing import RunName, parse
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import unfinished
from fastvae.ranges import require, up_to

if TYPE_CHECKING:
    from fastvae.latency.measure import Cell
    from fastvae.latency.start import Start

_LARGEST = 65536
_LONGEST_S = 3600


@dataclass(frozen=True)
class _Command:
    """Times `vae.accelerate()` beside the plain module (fastvae's own, eager, float32, channels_last), interleaved.

    Prints p50, p95, p99 and images a second of every verb and batch size; then the time from the start of a process
    to its first reconstruction, and its memory. Writes everything as JSON, and a picture beside it. On two idle CPU
    cores this takes about two minutes at width 32.
    """

    run: tyro.conf.Positional[RunName]  # a run folder, a checkpoint, a saved folder, a model.safetensors, or user/name
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)  # images per call, 1 to 65536
    verbs: tuple[Literal["encode", "decode", "reconstruct"], ...] = ("encode", "decode", "reconstruct")  # to time
    seconds: float = 3.0  # for each verb and batch size, > 0, at most 3600; at least ten calls of each are timed
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if available
    start: bool = True  # measure start-up and memory, in separate processes
    out: Path = Path("latency.json")  # JSON to write; the picture has its name with .png

    def __post_init__(self) -> None:
        require(self, seconds=up_to(_LONGEST_S))
        if not self.batch_sizes or not all(1 <= n <= _LARGEST for n in self.batch_sizes):
            raise UsageError(
                f"batch-sizes must be 1 to {_LARGEST}; got {' '.join(map(str, self.batch_sizes)) or 'none'}"
            )
        if not self.verbs:
            raise UsageError("--verbs needs at least one of encode, decode, reconstruct")


def run(argv: list[str]) -> int:
    """Parses the flags and measures; finished results are always written.

    Raises:
        FastvaeError: the run cannot be read, a result is wrong, or the results cannot be written.
    """
    command = parse(_Command, prog="fastvae latency", args=argv)
    from fastvae import load
    from fastvae.cli.targets import check_json, check_not_read
    from fastvae.files.atomic_write import check_writable
    from fastvae.hub.locate import name_of
    from fastvae.latency.measure import Cell, measure
    from fastvae.latency.start import Start, measure_starts, planned
    from fastvae.machine import choose_device, environment
    from fastvae.progress_bar import progress_bar

    check_json(command.out)
    check_json(unfinished(command.out))
    for out in (command.out, unfinished(command.out)):
        check_writable(_picture(out))
        check_not_read(_picture(out), [])
    device = choose_device(command.device)
    verbs, batches = tuple(dict.fromkeys(command.verbs)), tuple(sorted(set(command.batch_sizes)))
    vae = load(command.run, device=device.type)
    if device.type == "cuda":
        fast = dict.fromkeys(batches, vae.accelerate(batch_sizes=batches, device=device))
    else:  # where the smallest size chooses the convolutions, so that a row would depend on what else is asked for
        fast = {batch: vae.accelerate(batch_sizes=(batch,), device=device) for batch in batches}
    metadata = {
        "run": name_of(command.run),
        "image_size": vae.image_size,
        "width": vae.width,
        "latent": vae.latent,
        "stages": vae.stages,
        "accelerated": repr(fast[batches[0]]),
        "plain": "fastvae.VAE, eager, float32, channels_last",
        "seconds_a_cell": command.seconds,
        "load_average": (load := _load_average()),  # of the last minute
        "machine": (machine := environment()),
    }
    where = machine["gpu"] if device.type == "cuda" else f"a CPU ({machine['cpu']}, {machine['threads']} threads)"
    # A call that waits for its own threads takes many times as long if other processes use the same cores.
    cores = os.cpu_count() or 1
    busy = f"busy with something else (load {load:g} on {cores} cores)" if (load or 0) > cores / 2 else ""
    title = f"{where}, torch {machine['torch']}"
    print(
        f"{title}, fastvae {machine['fastvae']}\naccelerated: {metadata['accelerated']}\nplain: {metadata['plain']}\n"
    )
    if busy:
        title = f"{title}, {busy}"
        print(f"the machine is {busy}: timings may be too slow\n")
    cells: list[Cell] = []
    starts: list[Start] = []
    complete = False
    try:
        timed = measure(vae, fast, verbs, command.seconds)
        for cell in progress_bar(timed, what="calls", total=len(verbs) * len(batches), leave=False):
            cells.append(cell)
        if command.start:
            timed = measure_starts(command.run, batches, device.type)
            for start in progress_bar(timed, what="starts", total=len(planned(batches)), leave=False):
                starts.append(start)
        complete = True
    finally:  # on Ctrl-C, finished results are kept
        if cells:
            name = f"VAE {vae.image_size}x{vae.image_size}, width {vae.width}, on {title}"
            out = command.out if complete else unfinished(command.out)
            _finish(out, name, cells, starts, metadata | {"complete": complete})
            if complete:
                for old in (unfinished(out), _picture(unfinished(out))):
                    old.unlink(missing_ok=True)
    return 0


def _finish(out: Path, title: str, cells: list["Cell"], starts: list["Start"], metadata: dict[str, Any]) -> None:
    """Writes everything (without matplotlib all but the picture), then prints: standard output may be closed."""
    from fastvae.latency import picture, report

    lines = [report.cells_table(cells)]
    if starts:
        lines += ["", report.starts_table(starts)]
    try:
        report.write(out, **metadata, cells=cells, starts=starts)
        lines += ["", f"{out} written" + ("" if metadata["complete"] else ": incomplete, as it was stopped")]
        _picture(out).unlink(missing_ok=True)  # of an earlier call, should this one's not be drawn
        try:
            picture.draw(cells, title, _picture(out))
            lines.append(f"{_picture(out)} written")
        except FastvaeError as error:
            print(error, file=sys.stderr)
    finally:
        print("\n".join(lines))


def _picture(out: Path) -> Path:
    return out.with_suffix(".png")


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):  # not on Windows
        return None
