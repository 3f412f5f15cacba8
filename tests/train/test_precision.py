"""A run's precision: decided once by the processor, logged, and kept when the run goes on elsewhere."""

import json

import pytest

from fastvae.cli import main

TINY = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--held-out", "8"]


INSTRUCTIONS = {"fp32": [], "bf16": ["avx512_bf16"]}


@pytest.mark.parametrize(("here", "elsewhere"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_it_is_logged_and_kept_on_another_machine(packed, tmp_path, processor, capsys, here, elsewhere):
    run = tmp_path / "run"
    flags = ["--device", "cpu", "--precision", "auto", *TINY]
    processor(*INSTRUCTIONS[here])
    assert main(["train", "celeba64-plain", "--data", str(packed.path), "--out", str(run), "--steps", "2", *flags]) == 0
    assert f"precision {here}: the processor has " in capsys.readouterr().err
    processor(*INSTRUCTIONS[elsewhere])
    assert main(["train", "--resume", str(run), "--steps", "4"]) == 0
    assert f"precision {here}: as requested, or as when the run began\n" in capsys.readouterr().err
    assert json.loads((run / "config.json").read_text())["train"]["precision"] == here
