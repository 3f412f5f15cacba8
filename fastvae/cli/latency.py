"""`fastvae latency RUN`: how long a trained VAE takes to answer on this machine."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from fastvae.config import above, require
from fastvae.errors import FastvaeError, UsageError

_LARGEST = 65536


@dataclass(frozen=True)
class _Command:
    """Times `vae.accelerate()` beside the plain module (fastvae's own, eager, float32, channels_last), in turns.

    Prints p50, p95, p99 and images a second of every verb and batch size; then what a process takes from its start to
    the first reconstruction, and its memory. Writes all of it as JSON, and a picture beside it. On two idle CPU
    cores that takes about two minutes at width 32.
    """

    run: tyro.conf.Positional[Path]  # a run folder, a checkpoint, a saved folder, a model.safetensors, or user/name
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)  # images a call, 1 to 65536
    verbs: tuple[Literal["encode", "decode", "reconstruct"], ...] = ("encode", "decode", "reconstruct")  # which
    seconds: float = 3.0  # for each verb and batch size, > 0; ten calls of each are done at least
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is one
    start: bool = True  # measure starts and memory, in processes of their own
    out: Path = Path("latency.json")  # JSON to write; the picture has its name with .png

    def __post_init__(self) -> None:
        require(self, seconds=above(0))
        if not self.batch_sizes or not all(1 <= n <= _LARGEST for n in self.batch_sizes):
            raise UsageError(f"batch-sizes are 1 to {_LARGEST}; got {' '.join(map(str, self.batch_sizes)) or 'none'}")
        if not self.verbs:
            raise UsageError("--verbs names none: encode, decode, reconstruct")
        if self.out.is_dir() or self.out.suffix != ".json":
            raise UsageError(f"--out {self.out} should be a file that ends in .json")


def run(argv: list[str]) -> int:
    """Parses the flags and measures; what was measured is written however it ends.

    Raises:
        FastvaeError: the run cannot be read, a result is wrong, or the results cannot be written.
    """
    command = tyro.cli(_Command, prog="fastvae latency", args=argv)
    from tqdm import tqdm

    from fastvae import load
    from fastvae.latency import picture, report
    from fastvae.latency.measure import Cell, measure
    from fastvae.latency.start import Start, measure_starts, planned
    from fastvae.machine import choose_device
    from fastvae.train.run_folder import environment
    from fastvae.whole_file import check_writable

    check_writable(command.out)
    device = choose_device(command.device)
    verbs, batches = tuple(dict.fromkeys(command.verbs)), tuple(sorted(set(command.batch_sizes)))
    vae = load(command.run, device=device.type)
    fast = vae.accelerate(batch_sizes=batches, device=device)
    about = {
        "run": command.run.resolve().name,
        "image_size": vae.image_size,
        "width": vae.width,
        "latent": vae.latent,
        "accelerated": repr(fast),
        "plain": "fastvae.VAE, eager, float32, channels_last",
        "seconds_a_cell": command.seconds,
        "load_average": (load := round(os.getloadavg()[0], 2)),  # of the minute before
        "machine": (machine := environment()),
    }
    where = machine["gpu"] if device.type == "cuda" else f"a CPU ({machine['cpu']}, {machine['threads']} threads)"
    # Others' threads on the same cores can make a call that waits for its own ones take many times as long.
    busy = f"busy with something else (load {load:g} on {os.cpu_count()} cores)" if load > os.cpu_count() / 2 else ""
    title = f"{where}, torch {machine['torch']}"
    print(f"{title}, fastvae {machine['fastvae']}\naccelerated: {about['accelerated']}\nplain: {about['plain']}\n")
    if busy:
        title = f"{title}, {busy}"
        print(f"the machine is {busy}: these are not the times that it is capable of\n")
    cells: list[Cell] = []
    starts: list[Start] = []
    whole = False
    progress = {"file": sys.stderr, "disable": None, "leave": False}
    try:
        found = measure(vae, fast, verbs, batches, command.seconds)
        for cell in tqdm(found, desc="calls", total=len(verbs) * len(batches), **progress):
            cells.append(cell)
        if command.start:
            found = measure_starts(command.run, batches, device.type)
            for start in tqdm(found, desc="starts", total=len(planned(batches)), **progress):
                starts.append(start)
        whole = True
    finally:  # Ctrl-C costs what is missing, and nothing that is there
        if cells:
            print(report.cells_table(cells))
            if starts:
                print(f"\n{report.starts_table(starts)}")
            report.write(command.out, **about, whole=whole, cells=cells, starts=starts)
            print(f"\n{command.out} written" + ("" if whole else ", with what was measured before it was stopped"))
            try:
                drawn = command.out.with_suffix(".png")
                picture.draw(cells, f"VAE {vae.image_size}x{vae.image_size}, width {vae.width}, on {title}", drawn)
                print(f"{drawn} written")
            except FastvaeError as error:
                print(error, file=sys.stderr)
    return 0
