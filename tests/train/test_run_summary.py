"""What is known of a run survives whatever its files say: it is taken in its right form, or left out."""

import json
import math
import os

import pytest
import torch
from safetensors.torch import save

import fastvae
from fastvae.hub.model_card import model_card
from fastvae.train.run_summary import of_checkpoint

CONFIG = {
    "recipe": "demo",
    "data": "/home/me/faces.fvae",
    "objective": {"name": "vae_wgan", "vgg": "/home/me/vgg19.pth", "beta": 0.1, "layers": ["relu1_1"]},
    "model": {"image_size": 32, "width": 2, "latent": 4, "stages": 3},
    "train": {"batch_size": 8, "lr": 0.001, "lr_decay": 0.5, "precision": "fp32"},
}
STRANGE = [None, True, -1, 2**62, 0.5, "", "x" * 5000, "a|b`c\n# d", "\udcfc", [], [1, "a"], [[1]], {}, {"a": {}}]


@pytest.fixture
def checkpoint(tmp_path):
    """The model.safetensors of a run without weights."""
    folder = tmp_path / "run" / "checkpoints" / "step-00000004"
    folder.mkdir(parents=True)
    return folder / "model.safetensors"


def summary(checkpoint, config=CONFIG, view=None, **metadata):
    return of_checkpoint({"format": 1, "step": 4, "config": config, **metadata}, checkpoint, view)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("faces", "faces"), ("/home/me/faces", "faces/"), ("faces/", "faces/"), ("hub:me/faces", "faces/"), ("/x/y", "y")],
)
def test_a_folder_called_faces_is_not_the_embedded_data_set(checkpoint, given, kept):
    found = summary(checkpoint, CONFIG | {"data": given})
    assert found.config["data"] == kept
    assert ("draws itself" in card(found)) == (kept == "faces")


def card(run) -> str:
    vae = fastvae.VAE(32, width=2, latent=4)
    vae.run = run
    text = model_card(vae, vae.run, picture=None, license=None)
    assert "nan" not in text.lower() and " inf" not in text.lower() and len(text) < 20000
    text.encode()
    assert all(line.count("|") - line.count("\\|") in (0, 3) for line in text.splitlines())
    return text


def test_as_the_run_wrote_it(checkpoint):
    run = checkpoint.parents[2]
    lines = [{"step": 2, "kl": 3.0, "epoch": 0.5}, {"step": 4, "held_out_psnr_db": 9.0}, {"step": 6, "kl": 1.0}]
    (run / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "environment.json").write_text('{"fastvae": "9.9"}')
    found = summary(checkpoint)
    assert (found.version, found.losses, found.held_out) == ("9.9", {"kl": 3.0, "epoch": 0.5}, {"psnr_db": 9.0})
    assert found.config["data"] == "faces.fvae" and found.config["objective"]["vgg"] == "vgg19.pth"
    assert "| learning rate | 0.001, times 0.5 after every epoch |" in card(found)


@pytest.mark.parametrize("part", ["recipe", "data", "objective", "model", "train"])
@pytest.mark.parametrize("value", STRANGE, ids=range(len(STRANGE)))
def test_a_part_of_the_config_of_another_type(checkpoint, part, value):
    found = summary(checkpoint, CONFIG | {part: value})
    if found is not None:
        assert isinstance(found.config["recipe"], str) and isinstance(found.config["objective"]["name"], str)
        card(found)
    summary(checkpoint, {key: kept for key, kept in CONFIG.items() if key != part})


@pytest.mark.parametrize("part", ["objective", "train"])
@pytest.mark.parametrize("value", STRANGE, ids=range(len(STRANGE)))
def test_a_field_of_the_config_of_another_type(checkpoint, part, value):
    for name in CONFIG[part]:
        card(summary(checkpoint, CONFIG | {part: CONFIG[part] | {name: value}}))
    card(summary(checkpoint, CONFIG | {part: CONFIG[part] | {"of_a_later_version": value}}))


@pytest.mark.parametrize("value", [*STRANGE, math.nan, math.inf, -math.inf, 1e308, 10**400], ids=repr)
def test_numbers_that_are_none(checkpoint, value):
    run = {"version": value, "losses": {"kl": value, "epoch": value, "seconds": value}, "held_out": value}
    found = summary(checkpoint, run=run)
    assert all(math.isfinite(number) for number in found.losses.values())
    card(found)
    card(summary(checkpoint, run=value))


@pytest.mark.parametrize(
    "stats",
    [
        b"",
        b"\xff\xfe\n",
        b"[1]\n3\nnull\n",
        b'{"step": "4", "kl": 1}\n{"step": null}\n{"step": 4.0, "kl": 1}\n{"step": true, "kl": 1}\n{"kl": 1}\n',
        b'{"step": 4, "kl": NaN}\n{"step": 4, "kl": 1e999, "epoch": "x", "lr": [1]}\n',
        b'{"step": 4, "held_out_psnr_db": {}}\n{"step": 4, "kl"',
        b'{"step": ' + b"[" * 100000,
    ],
    ids=range(7),
)
def test_statistics_that_are_damaged(checkpoint, stats):
    (checkpoint.parents[2] / "stats.jsonl").write_bytes(stats)
    (checkpoint.parents[2] / "environment.json").write_bytes(stats)
    found = summary(checkpoint)
    assert (found.version, found.losses, found.held_out) == (None, {}, {})
    card(found)


def test_files_that_are_none(checkpoint):
    run = checkpoint.parents[2]
    os.mkfifo(run / "stats.jsonl")
    (run / "environment.json").mkdir()
    (run / "pictures").touch()
    assert summary(checkpoint).losses == {}


def test_pictures_are_ordered_by_number_and_only_those_of_our_own_form(checkpoint):
    folder = checkpoint.parents[2] / "pictures"
    folder.mkdir()
    for name in ("00000002", "00000003-mine", "0000000²", "99999999", "best", "3", "100000000"):
        (folder / f"reconstructions-{name}.png").touch()
    (folder / "reconstructions-00000004.png").mkdir()
    assert summary(checkpoint).picture == folder / "reconstructions-00000002.png"


def test_a_copy_of_a_checkpoint_tells_nothing_of_the_folder_that_it_lies_in(checkpoint):
    (checkpoint.parents[2] / "stats.jsonl").write_text('{"step": 4, "kl": 3.0}\n')
    assert summary(checkpoint.parents[2] / "a" / "b" / "model.safetensors").losses == {}


@pytest.mark.parametrize("value", STRANGE, ids=range(len(STRANGE)))
def test_a_model_loads_whatever_is_said_of_its_run(tmp_path, value):
    vae = fastvae.VAE(32, width=2, latent=4)
    model = CONFIG["model"] | {"of_a_later_version": value}
    metadata = {
        "format": 1,
        "step": 3,
        "config": CONFIG | {"objective": value, "model": model},
        "run": value,
        "x": value,
    }
    (tmp_path / "model.safetensors").write_bytes(save(vae.state_dict(), {"fastvae": json.dumps(metadata)}))
    again = fastvae.load(tmp_path)
    assert torch.equal(again.encoder.mean.weight, vae.encoder.mean.weight)
    again.save_pretrained(tmp_path / "again")
    fastvae.load(tmp_path / "again")
