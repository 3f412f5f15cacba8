"""Measures a finished run and leaves a record of it in bench/records/results.

python -m bench.results.measure runs/cifar10 --data cifar10.fvae --count 10000

The samples, reconstructions and their scores are `fastvae evaluate`'s, protocol paper: as many real held-out images as
generated ones. Learning curves, the KL divergence, the sharpness and the critic's share are those of the run's own log.
The record holds numbers alone, with which docs/results.md is made: python -m bench.results.page. It replaces an earlier
one of the same command, with its pictures.
"""

import argparse
import re
import shlex
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bench.reporting.compact_json import write_json
from bench.reporting.record import RECORDS, check_writable, place
from bench.results import commands, pictures
from bench.results.commands import name_of
from bench.results.curves import curves
from fastvae.cli import main as fastvae
from fastvae.errors import FastvaeError
from fastvae.files.reading import read_json, read_json_lines
from fastvae.runs.open import open_runs

FOLDER = RECORDS / "results"
# Of the last tenth of a curve: single steps of a critic's share differ by a factor of two.
_LAST = 10
# What only the run's own log tells; the rest is measured.
_OF_THE_LOG = ("kl", "held_out_sharpness", "gan_to_rec", "label_scale")
# The folders of an absolute path in a text; a URL's slashes are none.
_FOLDERS = re.compile(r"(?<![\w.:/~])~?/(?:[^\s/,]+/)*")


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.results.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=place, help="folder of a finished run")
    parser.add_argument("--data", required=True, help="what it was trained on, as for fastvae evaluate")
    parser.add_argument("--name", help="of the record, if it is not the recipe's")
    parser.add_argument("--count", default="10000", help="images to generate, at most as many as are held out")
    parser.add_argument("--inception", default=[], nargs=1, help="as for fastvae evaluate")
    parser.add_argument(
        "--no-floor",
        action="store_true",
        help="leave out the row of real images, if another record of this data set has it",
    )
    parser.add_argument("--vgg", default="caffe", help="as for fastvae evaluate")
    parser.add_argument("--device", default="auto", help="as for fastvae evaluate")
    parser.add_argument(
        "--pictures", action="store_true", help="keep pictures beside the record, if its data's may be published"
    )
    parser.add_argument("--out", type=place, default=FOLDER, help="folder of the records")
    options = parser.parse_args(arguments)
    try:
        config = read_json(options.run / "config.json")
        name = options.name or config["recipe"]
        path = options.out / f"{name}.json"
        check_writable(path)
        environment = read_json(options.run / "environment.json")
        logged, command = of_log(options.run, config), _without_folders(commands.of_run(options.run, environment))
        _check_same_run(path, command)
        models = open_runs([options.run])
        if len(models) != 1:
            raise FastvaeError(
                f"a record is of one model; the run has {', '.join(model.name for model in models)}: measure a run of "
                "each layer, such as celeba64-relu1_1"
            )
        inception = ["--inception", *options.inception] if options.inception else []
        flags = ["--data", options.data, "--count", options.count, "--vgg", options.vgg, *inception]
        flags += ["--no-floor"] if options.no_floor else []
        evaluation = _evaluated(options.run, [*flags, "--device", options.device])
        if evaluation is None:
            return 1
        floor, row = ([r for r in evaluation["rows"] if (r["name"] == "real images") == real] for real in (True, False))
        record = {
            "what": f"a complete run of {config['recipe']}, measured",
            "name": name,
            "command": command,
            "evaluation_command": f"fastvae evaluate RUN --reconstruction-fid {shlex.join(map(name_of, flags))}",
            "machine": {k: v for k, v in environment.items() if k not in ("command", "resumed")},
            **logged,
            "evaluation": {k: v for k, v in evaluation.items() if k != "rows"},
            "numbers": logged["numbers"] | {k: v for k, v in row[0].items() if k != "name" and v is not None},
            "real_images": {k: v for k, v in floor[0].items() if k != "name" and v} if floor else {},
            "config": config,
        }
        # First what took long, then what can be drawn again.
        write_json(path, _without_folders(record))
        pictures.forget(name, options.out)
        drawn = pictures.keep(models[0], options.data, name, options.out) if options.pictures else []
    except FastvaeError as error:
        print(f"bench.results.measure: {error}", file=sys.stderr)
        return 1
    print(f"{', '.join(map(str, [path, *drawn]))} written; python -m bench.results.page shows it")
    return 0


def _check_same_run(path: Path, command: str) -> None:
    if path.exists() and (before := read_json(path).get("command")) != command:
        raise FastvaeError(
            f"{path} is the record of another run, {before}: give this one, {command}, another --name, or remove that"
        )


def of_log(run: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What the run's own log says: how long it was, its last numbers, its curves.

    Raises:
        FastvaeError: the log cannot be read, is empty, ends before the run should, or a number is not finite.
    """
    lines = list(read_json_lines(run / "stats.jsonl"))
    timed = [line for line in lines if "images_per_s" in line]
    if not timed:
        raise FastvaeError(f"{run / 'stats.jsonl'} has no line of a training step: has the run begun?")
    found = curves(lines)
    last = timed[-1]
    _check_ended(last, config["train"])
    numbers = {name: _end(found[name]["curve_value"]) for name in _OF_THE_LOG if name in found}
    return {
        "steps": last["step"],
        "images": sum(
            (line["step"] - before) * config["train"]["batch_size"] * line.get("ranks", 1)
            for before, line in zip([0, *(line["step"] for line in timed)], timed, strict=False)
        ),
        "seconds": last["seconds"],
        "images_per_s": median(line["images_per_s"] for line in timed),
        "numbers": numbers,
        "curves": found,
    }


def _check_ended(last: dict[str, Any], train: dict[str, Any]) -> None:
    """Raises FastvaeError if the last line is of a step before the end, in steps, epochs or minutes."""
    steps, epochs, minutes = train.get("steps"), train["epochs"], train.get("minutes")
    left = steps - last["step"] if steps else (epochs - last["epoch"]) * last["step"] / max(last["epoch"], 1e-9)
    wanted = f"{steps} steps" if steps else f"{epochs} epochs"
    if minutes is not None:
        left = min(left, (60 * minutes - last["seconds"]) * last["step"] / max(last["seconds"], 1e-9))
        wanted += f" or {minutes:g} minutes"
    # A line every so many steps: the last one may come a little before the end.
    if left >= train["log_every"]:
        raise FastvaeError(
            f"the run is not complete: its log ends at step {last['step']}, and it was to take {wanted}. Did it "
            "diverge or stop? Go on with fastvae train --resume"
        )


def _end(values: list[float]) -> float:
    """The median of a curve's last tenth; its last value, if it has fewer than ten."""
    return median(values[-max(1, len(values) // _LAST) :])


def _evaluated(run: Path, flags: list[str]) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "evaluation.json"
        code = fastvae(["evaluate", str(run), *flags, "--reconstruction-fid", "--out", str(out)])
        if code or not (found := read_json(out))["complete"]:
            return None
    return found


def _without_folders(value: Any) -> Any:
    """Absolute paths as file names: where things lie is this machine's own affair."""
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    return _FOLDERS.sub("", value) if isinstance(value, str) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
