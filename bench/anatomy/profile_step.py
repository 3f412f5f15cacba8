"""Where a training step's time goes.

Trains a few steps of a recipe with the loader running, writes a trace of them (trace.json, for chrome://tracing or
Perfetto), then times the parts of the step one by one and sets them beside the least that this machine could take for
their arithmetic and their traffic (step.txt, step.json, step.png). The three largest gaps between time and floor stand
below the table. A time limit (SIGTERM) or a crash leaves the trace and the complete step's time. The loss network's
weights are random unless --vgg says else, which takes as long.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.anatomy import picture, table
from bench.anatomy.device_trace import idle_share
from bench.anatomy.real_steps import RealSteps
from bench.measuring import ceilings
from bench.measuring.ceilings import Ceilings
from bench.measuring.tiny import tiny_run
from bench.reporting import record
from fastvae.config import Config
from fastvae.errors import FastvaeError
from fastvae.recipes import RECIPES
from fastvae.train.build import resolve

# Windows of steps whose times make the complete step's median and quartiles.
_WINDOWS = 5


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="bench.anatomy.profile_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="celeba64")
    parser.add_argument("--steps", type=int, default=10, help="of the trace, and of each timed window; 10")
    parser.add_argument("--batch-size", type=int, help="images a step, the recipe's unless given")
    parser.add_argument("--data", default="faces", help="as of `fastvae train`; the embedded faces unless given")
    parser.add_argument("--vgg", default="random", help="the loss network's weights; random unless given")
    parser.add_argument("--rounds", type=int, help="calls of each part; 50 on a GPU, 5 on a CPU")
    parser.add_argument("--tiny", action="store_true", help="a net of a few channels, to try this out")
    parser.add_argument("--out", type=record.place, default=Path("profile"), help="folder; profile/")
    options = parser.parse_args(arguments)
    for name in ("steps", "rounds"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be 1 or more; got {getattr(options, name)}")
    record.exit_on_sigterm()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fastvae-") as folder:
            config = _config(options)
            config, _ = resolve(tiny_run(config, Path(folder)) if options.tiny else config)
            _profile(config, options)
    except FastvaeError as error:
        print(f"bench.anatomy.profile_step: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"bench.anatomy.profile_step: {error}: free some space, or give another --out", file=sys.stderr)
        return 1
    return 0


def _config(options: argparse.Namespace) -> Config:
    config = replace(RECIPES[options.recipe](), data=options.data)
    if hasattr(config.objective, "vgg"):
        config = replace(config, objective=replace(config.objective, vgg=options.vgg))
    if options.batch_size is not None:
        config = replace(config, train=replace(config.train, batch_size=options.batch_size))
    return config


def _profile(config: Config, options: argparse.Namespace) -> None:
    device, out = config.train.device, options.out
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    title = f"{config.recipe}, batch {config.train.batch_size}, {config.train.precision}, {record.machine()}"
    notes: list[str] = []
    if on_gpu:  # the profiler sees the kernels of those graphs only that are captured after its first use
        with profile(activities=activities):
            pass
    with RealSteps(config) as real:
        print(f"the step is ready after {real.warm_up():.1f} s", file=sys.stderr)
        windows = [real.window(options.steps) for _ in range(_WINDOWS)]
        with profile(activities=activities) as traced:
            real.window(options.steps)
        traced.export_chrome_trace(str(out / "trace.json"))
        idle = idle_share(out / "trace.json") if on_gpu else None
        times = {"step_s": [w.step_s for w in windows], "wait_s": [w.waited_s / w.steps for w in windows]}
        _write(out, title, table.without_parts(**times), idle, ["the run ended before its parts were timed"])
        dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
        limits = ceilings.measure(device, list(dict.fromkeys([dtype, torch.float32])), rounds=1 if options.tiny else 10)
        rows = table.measure(
            real.trainer.step,
            config,
            **times,
            ceilings=limits,
            rounds=options.rounds or (50 if on_gpu else 5),
            note=notes.append,
        )
    _write(out, title, rows, idle, notes, limits)
    if not on_gpu:
        of_device = "idle share of the device: not defined, the step runs on the CPU"
    elif idle is None:
        of_device = "idle share of the device: not known, the trace holds no kernel"
    else:
        of_device = f"the device was idle for {100 * idle:.1f} % of the traced steps"
    text = "\n".join([title, table.text(rows), of_device, *(f"note: {note}" for note in notes)])
    print(text)
    (out / "step.txt").write_text(text + "\n")
    picture.draw(rows, title, out / "step.png")
    print(f"{out}: trace.json, step.txt, step.json, step.png written")


def _write(
    out: Path,
    title: str,
    rows: list[table.PartRow],
    idle: float | None,
    notes: list[str],
    limits: Ceilings | None = None,
) -> None:
    record.write(
        out / "step.json",
        what=f"the training step by part: {title}",
        rows=[asdict(row) for row in rows],
        notes=notes,
        ceilings=limits,
        extra={
            "command": " ".join(["python -m bench.anatomy.profile_step", *sys.argv[1:]]),
            "idle_share": idle,
            "largest_gaps": [row.part for row in table.largest_gaps(rows)] if limits else [],
        },
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
