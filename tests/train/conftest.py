"""A training run small enough to be repeated by many tests."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from fastvae.cli import main

# Two layers of the stand-in loss network at 32x32: a step takes milliseconds.
SMALL = [
    "--vgg", "random", "--layers", "relu1_1", "relu2_1", "--image-size", "32", "--width", "2", "--latent", "4",
    "--batch-size", "8", "--held-out", "8", "--log-every", "1", "--balance-every", "4", "--precision", "fp32",
    "--device", "cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _compiler_forgets():
    """One function stands for the passes of all steps, and torch compiles a function eight times and then no more."""
    yield
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@pytest.fixture(scope="session")
def four_steps(packed, tmp_path_factory) -> Path:
    """A run with checkpoints of steps 2 and 4, for tests to copy."""
    run = tmp_path_factory.mktemp("four_steps") / "run"
    flags = ["--data", str(packed.path), *SMALL, "--out", str(run), "--steps", "4", "--checkpoint-every", "2"]
    assert main(["train", "celeba64-literal", *flags]) == 0
    return run


@pytest.fixture
def trained(four_steps, tmp_path) -> Path:
    """A run of its own, with checkpoints of steps 2 and 4."""
    return Path(shutil.copytree(four_steps, tmp_path / "run", symlinks=True))


@pytest.fixture
def train(packed, tmp_path):
    """train("--steps", "3", ...) -> exit code; the run is in tmp_path / "run" unless --out or --resume say else."""

    def run(*flags: str, recipe: str = "celeba64-literal") -> int:
        if "--resume" in flags:
            return main(["train", *flags])
        out = [] if "--out" in flags else ["--out", str(tmp_path / "run")]
        return main(["train", recipe, "--data", str(packed.path), *SMALL, *out, *flags])

    return run
