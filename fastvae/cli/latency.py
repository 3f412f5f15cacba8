"""`fastvae latency RUN`: how long a trained VAE takes to answer on this machine."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from fastvae.cli.parsing import RunName, parse
from fastvae.errors import FastvaeError, UsageError
from fastvae.ranges import require, up_to

if TYPE_CHECKING:
    from fastvae.latency.measure import Cell
    from fastvae.latency.start import Start

_LARGEST = 65536
_LONGEST_S = 3600


@dataclass(frozen=True)
class _Command:
    """Times `vae.accelerate()` beside the plain module (fastvae's own, eager, float32, channels_last), in turns.

    Prints p50, p95, p99 and images a second of every verb and batch size; then what a process takes from its start to
    the first reconstruction, and its memory. Writes all of it as JSON, and a picture beside it. On two idle CPU
    cores that takes about two minutes at width 32.
    """

    run: tyro.conf.Positional[RunName]  # a run folder, a checkpoint, a saved folder, a model.safetensors, or user/name
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)  # images a call, 1 to 65536
    verbs: tuple[Literal["encode", "decode", "reconstruct"], ...] = ("encode", "decode", "reconstruct")  # which
    seconds: float = 3.0  # for each verb and batch size, > 0, at most 3600; ten calls of each are done at least
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is one
    start: bool = True  # measure starts and memory, in processes of their own
    out: Path = Path("latency.json")  # JSON to write; the picture has its name with .png

    def __post_init__(self) -> None:
        require(self, seconds=up_to(_LONGEST_S))
        if not self.batch_sizes or not all(1 <= n <= _LARGEST for n in self.batch_sizes):
            raise UsageError(f"batch-sizes are 1 to {_LARGEST}; got {' '.join(map(str, self.batch_sizes)) or 'none'}")
        if not self.verbs:
            raise UsageError("--verbs names none: encode, decode, reconstruct")


def run(argv: list[str]) -> int:
    """Parses the flags and measures; what was measured is written however it ends.

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
    check_writable(_picture(command.out))
    check_not_read(_picture(command.out), [])
    device = choose_device(command.device)
    verbs, batches = tuple(dict.fromkeys(command.verbs)), tuple(sorted(set(command.batch_sizes)))
    vae = load(command.run, device=device.type)
    fast = vae.accelerate(batch_sizes=batches, device=device)
    about = {
        "run": name_of(command.run),
        "image_size": vae.image_size,
        "width": vae.width,
        "latent": vae.latent,
        "accelerated": repr(fast),
        "plain": "fastvae.VAE, eager, float32, channels_last",
        "seconds_a_cell": command.seconds,
        "load_average": (load := _load_average()),  # of the minute before
        "machine": (machine := environment()),
    }
    where = machine["gpu"] if device.type == "cuda" else f"a CPU ({machine['cpu']}, {machine['threads']} threads)"
    # Others' threads on the same cores can make a call that waits for its own ones take many times as long.
    cores = os.cpu_count() or 1
    busy = f"busy with something else (load {load:g} on {cores} cores)" if (load or 0) > cores / 2 else ""
    title = f"{where}, torch {machine['torch']}"
    print(f"{title}, fastvae {machine['fastvae']}\naccelerated: {about['accelerated']}\nplain: {about['plain']}\n")
    if busy:
        title = f"{title}, {busy}"
        print(f"the machine is {busy}: timings may be too slow\n")
    cells: list[Cell] = []
    starts: list[Start] = []
    whole = False
    try:
        found = measure(vae, fast, verbs, batches, command.seconds)
        for cell in progress_bar(found, what="calls", total=len(verbs) * len(batches), leave=False):
            cells.append(cell)
        if command.start:
            found = measure_starts(command.run, batches, device.type)
            for start in progress_bar(found, what="starts", total=len(planned(batches)), leave=False):
                starts.append(start)
        whole = True
    finally:  # on Ctrl-C, finished results are kept
        if cells:
            name = f"VAE {vae.image_size}x{vae.image_size}, width {vae.width}, on {title}"
            _finish(command.out, name, cells, starts, about | {"whole": whole})
    return 0


def _finish(out: Path, title: str, cells: list["Cell"], starts: list["Start"], about: dict[str, Any]) -> None:
    """Writes everything, without matplotlib everything but the picture; then prints, since nobody may be reading."""
    from fastvae.latency import picture, report

    said = [report.cells_table(cells)]
    if starts:
        said += ["", report.starts_table(starts)]
    try:
        report.write(out, **about, cells=cells, starts=starts)
        said += ["", f"{out} written" + ("" if about["whole"] else ", with what was measured before it was stopped")]
        try:
            picture.draw(cells, title, _picture(out))
            said.append(f"{_picture(out)} written")
        except FastvaeError as error:
            print(error, file=sys.stderr)
    finally:
        print("\n".join(said))


def _picture(out: Path) -> Path:
    return out.with_suffix(".png")


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):  # Windows has none
        return None
