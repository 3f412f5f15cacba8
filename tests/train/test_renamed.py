"""Options of the last version, as flags and in its runs."""

import json

from safetensors import safe_open
from safetensors.torch import save_file

import fastvae
from fastvae.cli import main
from fastvae.renamed import renamed_config, renamed_flags
from fastvae.train.checkpoint_files import latest, read_metadata


def test_old_flags_become_new_ones(caplog):
    old = ["wgan", "--first-long", "3", "--long_round=7", "--clipped", "weights_but_norm", "--out", "weights_but_norm"]
    assert renamed_flags(old) == [
        "wgan", "--warmup-generator-steps", "3", "--warmup-critic-steps=7",
        "--clipped", "weights_except_norm", "--out", "weights_but_norm",
    ]  # fmt: skip
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert "--first-long is now called --warmup-generator-steps" in caplog.text
    assert renamed_flags(["--steps", "3"]) == ["--steps", "3"]


def test_old_names_in_a_config():
    old = {"recipe": "most", "objective": {"name": "wgan", "first_long": 3, "clipped": "weights_but_norm", "most": []}}
    new = {"name": "wgan", "warmup_generator_steps": 3, "clipped": "weights_except_norm", "limit": []}
    assert renamed_config(old) == {"recipe": "most", "objective": new}


OLD_NAMES = {
    "warmup_generator_steps": "first_long",
    "warmup_critic_steps": "long_round",
    "warmup_every": "long_every",
}


def with_old_names(config: dict) -> dict:
    return {**config, "objective": {OLD_NAMES.get(k, k): v for k, v in config["objective"].items()}}


def test_a_run_of_the_last_version_goes_on(packed, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--data", str(packed.path), "--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8"]
    flags += ["--precision", "fp32", "--device", "cpu", "--first-long", "1", "--long-round", "2", "--out", str(run)]
    assert main(["train", "cifar10-wgan", *flags, "--steps", "2"]) == 0
    assert capsys.readouterr().err.count("is now called") == 2
    config = json.loads((run / "config.json").read_text())
    assert config["objective"]["warmup_critic_steps"] == 2
    (run / "config.json").write_text(json.dumps(with_old_names(config)))
    model = latest(run) / "model.safetensors"
    with safe_open(model, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["fastvae"])
    metadata["config"] = with_old_names(metadata["config"])
    save_file(tensors, model, {"fastvae": json.dumps(metadata)})
    assert read_metadata(model)["config"]["objective"] == config["objective"]
    assert main(["train", "--resume", str(run), "--steps", "3"]) == 0
    assert json.loads((run / "config.json").read_text())["objective"] == config["objective"]


def test_old_names_last_for_one_version():
    assert fastvae.__version__.startswith(("0.1.", "0.2.")), "remove fastvae/renamed.py, this test and the calls"
