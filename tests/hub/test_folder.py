"""Saving and loading on local folders: nothing is lost, nothing private travels, nothing needs the Hub."""

import json
import sys

import pytest
import torch
from safetensors import safe_open

import fastvae
from fastvae.errors import FastvaeError
from fastvae.hub import folder as hub_folder
from fastvae.train.checkpoint_files import latest


def same(first: fastvae.VAE, second: fastvae.VAE) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_there_and_back(run, tmp_path):
    vae = fastvae.load(run)
    vae.save_pretrained(tmp_path / "deep" / "model", license="cc-by-4.0")
    folder = tmp_path / "deep" / "model"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "reconstructions.png",
    ]
    for again in (
        fastvae.load(folder),
        fastvae.VAE.from_pretrained(folder),
        fastvae.load(folder / "model.safetensors"),
    ):
        assert same(vae, again) and not again.training
        assert again.run.losses == vae.run.losses and again.run.held_out == vae.run.held_out
    assert json.loads((folder / "config.json").read_text())["width"] == 2


def test_the_card_survives_a_second_saving(run, tmp_path):
    fastvae.load(run).save_pretrained(tmp_path / "first")
    fastvae.load(tmp_path / "first").save_pretrained(tmp_path / "second")
    for name in ("README.md", "reconstructions.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_model_built_by_hand(tmp_path):
    vae = fastvae.VAE(32, width=3, latent=5)
    vae.save_pretrained(tmp_path)
    again = fastvae.load(tmp_path)
    assert same(vae, again) and again.run is None
    assert "No training record" in (tmp_path / "README.md").read_text()


def test_no_path_of_the_machine_travels(run, packed, tmp_path):
    fastvae.load(run).save_pretrained(tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        metadata = file.metadata()["fastvae"]
    card = (tmp_path / "model" / "README.md").read_text()
    for text in (metadata, card):
        assert packed.path.name in text and str(packed.path.parent) not in text


def test_an_edited_card_stays(run, tmp_path):
    (tmp_path / "README.md").write_text("my own words")
    fastvae.load(run).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own words"


def test_local_folders_need_no_hub(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    vae = fastvae.load(run)
    vae.save_pretrained(tmp_path)
    assert same(vae, fastvae.VAE.from_pretrained(tmp_path))


def test_a_place_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FastvaeError, match=r"could not be written .*: free some space, or choose another folder"):
        fastvae.load(run).save_pretrained(tmp_path / "file" / "model")


def test_a_full_disk_leaves_the_old_weights(run, small_disk):
    vae = fastvae.VAE(32, width=2, latent=4)
    vae.save_pretrained(small_disk)
    before = (small_disk / "model.safetensors").read_bytes()
    with pytest.raises(FastvaeError, match="free some space"):
        fastvae.VAE(64, width=32).save_pretrained(small_disk)
    assert (small_disk / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "metadata, words",
    [
        ({"format": 99, "config": {}}, "this version reads checkpoint format 1; .* has format 99"),
        ("not JSON", "cannot be read"),
        ({"config": {}}, "cannot be read"),
        ({"format": 1, "config": {}}, "does not say how to build the model"),
        ({"format": 1, "config": {"model": {"image_size": 32, "depth": 3}}}, "another architecture"),
        ({"format": 1, "config": {"model": {"image_size": 64, "width": 2, "latent": 4}}}, "another architecture"),
    ],
)
def test_weights_of_another_version(run, tmp_path, metadata, words):
    from safetensors.torch import save_file

    vae = fastvae.VAE(32, width=2, latent=4)
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    save_file(vae.state_dict(), tmp_path / "model.safetensors", {"fastvae": text})
    with pytest.raises(FastvaeError, match=words):
        fastvae.load(tmp_path)


def test_somebody_else_s_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(FastvaeError, match="was not written by fastvae"):
        fastvae.load(tmp_path)


def test_a_run_without_a_vae(tmp_path):
    from safetensors.torch import save_file

    metadata = json.dumps({"format": 1, "config": {"model": {"image_size": 32, "width": 2, "latent": 4}}})
    save_file({"critic.x": torch.zeros(1)}, tmp_path / "model.safetensors", {"fastvae": metadata})
    with pytest.raises(FastvaeError, match="holds no VAE"):
        fastvae.load(tmp_path)


def test_the_picture_is_the_checkpoint_s_own(run):
    """Not one that a later step made."""
    later = run / "pictures" / "reconstructions-00000099.png"
    later.write_bytes(b"")
    try:
        assert fastvae.load(run).run.picture.name == "reconstructions-00000003.png"
    finally:
        later.unlink()


def test_a_model_that_replaces_another_does_not_keep_its_picture(run, tmp_path):
    fastvae.load(run).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "reconstructions.png").is_file()
    fastvae.load(tmp_path / "saved").save_pretrained(tmp_path / "saved")  # its own stays
    assert (tmp_path / "saved" / "reconstructions.png").is_file()
    fastvae.VAE(32, width=2, latent=4).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "reconstructions.png").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "reconstructions.png").touch()
    fastvae.VAE(32, width=2, latent=4).save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "reconstructions.png").exists()


def test_names(run):
    assert hub_folder.PICTURE == "reconstructions.png"
    assert fastvae.load(run).run.config["recipe"] == "celeba64-plain"


def test_lazily_negated_weights_are_saved_negated(tmp_path):
    vae = fastvae.VAE(16, 2, 3)
    expected = vae.encoder.mean.weight.detach().clone()
    vae.encoder.mean.weight = torch.nn.Parameter(torch._neg_view(-expected))
    vae.save_pretrained(tmp_path)
    assert torch.equal(fastvae.load(tmp_path).encoder.mean.weight, expected)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fastvae.VAE(32, width=2, latent=4).save_pretrained("~/model")
    assert (tmp_path / "model" / "model.safetensors").is_file() and not (tmp_path / "~").exists()
    for nowhere in ("", "~nobody-of-this-name/model"):
        with pytest.raises(FastvaeError):
            fastvae.VAE(32, width=2, latent=4).save_pretrained(nowhere)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value, caplog):
    vae = fastvae.VAE(32, width=2, latent=4)
    vae.save_pretrained(tmp_path)
    assert not caplog.text
    with torch.no_grad():
        vae.decoder.linear.weight[0, 0] = value
    vae.save_pretrained(tmp_path)
    assert "NaN or infinity in decoder.linear.weight" in caplog.text
    assert not fastvae.load(tmp_path).decoder.linear.weight.isfinite().all()


def test_other_models_and_runs_keep_their_files(run, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "weights").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "weights" / "model.safetensors")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    vae = fastvae.load(run)
    folders = [tmp_path / "bert", tmp_path / "weights", tmp_path / "broken", run, latest(run)]
    before = {path: path.read_bytes() for folder in folders for path in folder.iterdir() if path.is_file()}
    for folder in folders:
        with pytest.raises(FastvaeError, match="choose another folder") as error:
            vae.save_pretrained(folder)
        assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for folder in folders for path in folder.iterdir() if path.is_file()} == before


def test_a_saved_model_is_replaced(tmp_path):
    fastvae.VAE(32, width=2, latent=4).save_pretrained(tmp_path)
    vae = fastvae.VAE(48, width=3, latent=5)
    vae.save_pretrained(tmp_path)
    assert same(fastvae.load(tmp_path), vae) and {path.name[0] for path in tmp_path.iterdir()}.isdisjoint(".")
