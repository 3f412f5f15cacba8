"""Kills training and preparation at random moments, goes on after each kill, and compares with what was never killed.

    python -m tests.train.kill_and_resume --kills 100 --seed 0

Every attempt is a process of its own, forked from this one, so that it starts at once, and ended by SIGKILL while it
trains, writes a checkpoint, or prepares a data set. At the end the weights, the optimisers and the logged losses must
be those of an uninterrupted run to the bit, prepared files must be equal byte for byte, and nothing half-written may
be left. A short form of it runs in the test suite.
"""

import argparse
import contextlib
import functools
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from PIL import Image

from fastvae.cli import main as fastvae
from fastvae.kernels import winograd
from fastvae.lossnet import load_loss_network, standin
from fastvae.train import checkpoint_files
from tests.conftest import blobs
from tests.train.conftest import SMALL

STEPS = 12
IMAGES = 400
_FILES = ("model.safetensors", "optimizer.safetensors")


def attempt(command: list[str], seconds: float | None) -> int | None:
    """Runs a command in a process of its own and kills it after some time; its exit code, None if it was killed."""
    child = os.fork()
    if child == 0:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nowhere, descriptor)
        os._exit(fastvae(command))
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.001)


def completed(command: list[str]) -> float:
    """Runs a command to its end, and gives the seconds that it took."""
    start = time.monotonic()
    code = attempt(command, None)
    assert code == 0, f"fastvae {' '.join(command)} ended with {code}"
    return time.monotonic() - start


def place_of_kill(run: Path) -> str:
    """What a killed process was doing, by what it left."""
    checkpoints = run / "checkpoints"
    if not (run / "config.json").exists():
        return "before the run began"
    if checkpoints.is_dir() and any(path.name.endswith(".part") for path in checkpoints.iterdir()):
        return "writing a checkpoint"
    if checkpoints.is_dir() and any(path.name.endswith(".old") for path in checkpoints.iterdir()):
        return "removing a checkpoint"
    return "training" if (run / "stats.jsonl").exists() else "opening"


def kill_training(folder: Path, data: Path, kills: int, numbers: random.Random) -> Counter:
    """Kills runs until `kills` are dead, finishes them, and compares each with the uninterrupted one."""
    new = [
        "train",
        "celeba64-literal",
        "--data",
        str(data),
        *SMALL,
        "--device",
        "cpu",
        "--image-size",
        "48",
    ]
    new += ["--steps", str(STEPS), "--checkpoint-every", "1", "--pictures-every", "4", "--evaluate-every", "4"]
    straight = folder / "straight"
    usual = completed([*new, "--out", str(straight)])
    expected, places, number = outcome(straight), Counter(), 0
    while kills > 0:
        run, killed = folder / f"killed-{number}", 0
        number += 1
        while True:
            # Of a run that was killed before its config was there, nothing is worth going on with.
            begun = (run / "config.json").exists()
            command = ["train", "--resume", str(run)] if begun else [*new, "--out", str(run)]
            code = attempt(command, numbers.uniform(0, usual / 2) if kills > 0 else None)
            if code is not None:
                assert code == 0, f"fastvae {' '.join(command)} ended with {code}"
                break
            kills, killed = kills - 1, killed + 1
            places[place_of_kill(run)] += 1
        found = outcome(run)
        differing = [key for key in expected | found if found.get(key) != expected.get(key)]
        assert not differing, f"{run} was killed {killed} times; {differing[0]}: {found.get(differing[0])!r:.300}"
        left = [path.name for path in run.rglob("*") if path.name.endswith((".part", ".old")) or ".part" in path.name]
        assert not left, f"{run} still holds {left}"
    return places


def outcome(run: Path) -> dict[str, object]:
    """The bytes of the newest checkpoint, and every logged line by its number."""
    newest = checkpoint_files.latest(run)
    assert checkpoint_files.step_of(newest) == STEPS, f"{run} ended at {newest.name}"
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_s")
    logged = [{key: value for key, value in line.items() if key not in timed} for line in lines]
    return {f"line {number}": line for number, line in enumerate(logged)} | {
        name: (newest / name).read_bytes() for name in _FILES
    }


def kill_preparation(folder: Path, kills: int, numbers: random.Random) -> Counter:
    """Kills `fastvae prepare`, finishes it, and compares the files."""
    photos = folder / "photos"
    photos.mkdir()
    for index, pixels in enumerate(blobs(IMAGES, 64)):
        Image.fromarray(pixels).save(photos / f"{index:04}.png")
    command = ["prepare", str(photos), "--image-size", "48", "--decoder", "pillow", "--workers", "1"]
    straight, killed = folder / "straight.fvae", folder / "out" / "killed.fvae"
    killed.parent.mkdir()
    usual = completed([*command, str(straight)])
    places = Counter()
    for _ in range(kills):
        code = attempt([*command, str(killed), "--overwrite"], numbers.uniform(0, usual))
        assert code in (None, 0), f"fastvae prepare ended with {code}"
        places["preparing" if code is None else "after preparing"] += 1
        if killed.exists():
            assert killed.read_bytes() == straight.read_bytes(), "a prepared file is not what it should be"
    completed([*command, str(killed), "--overwrite"])
    assert killed.read_bytes() == straight.read_bytes()
    assert [path.name for path in killed.parent.iterdir()] == ["killed.fvae"], "something half-written is left"
    return places


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="a quarter of them while a data set is prepared")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads of a pool do not survive the fork
    modules = ("fastvae.cli.train", "fastvae.cli.prepare", "fastvae.train.trainer")
    for module in (*modules, "torch.utils.tensorboard", "torch._dynamo"):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)  # once, here, and not in every attempt
    # So is the stand-in loss network, whose drawing takes half a second.
    standin._drawn = functools.cache(standin._drawn)
    load_loss_network("random", taps=("relu1_1", "relu2_1"))
    winograd.is_available()  # compiles the C++, if need be: not within the first attempt
    numbers = random.Random(options.seed)
    of_preparation = options.kills // 4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FASTVAE_CACHE"] = str(folder / "cache")
        places = kill_preparation(folder, of_preparation, numbers)
        places += kill_training(folder, folder / "straight.fvae", options.kills - of_preparation, numbers)
    for place, count in places.most_common():
        print(f"{count:4} killed {place}")
    print(f"{places.total()} kills, each followed by going on: all as if uninterrupted, to the bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
