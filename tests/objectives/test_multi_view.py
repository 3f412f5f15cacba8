"""All views in one run are what separate runs with the same seed are."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import fastvae
from fastvae.cli import main
from fastvae.errors import FastvaeError
from fastvae.runs.sampler import load_views
from fastvae.train.checkpoint_files import latest

LAYERS = ("relu1_1", "relu2_1")
FLAGS = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--steps", "3", "--vgg", "random"]
FLAGS += ["--precision", "fp32", "--device", "cpu", "--log-every", "1"]
BALANCED = ("--critic", "balanced", "--kl-warmup", "0", "--ema", "0")
# As the recipe has them, with measurements and changes in every step.
HELD = ("--critic", "held", "--balance-every", "1", "--kl-warmup", "0.9", "--ema", "0.9")


@pytest.fixture(scope="module", params=[BALANCED, HELD], ids=["balanced", "held"])
def flags(request):
    return [*FLAGS, *request.param]


@pytest.fixture(scope="module")
def runs(flags, packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    common = ["--data", str(packed.path), *flags]
    for layer in LAYERS:
        assert main(["train", f"celeba64-{layer}", "--out", str(folder / layer), *common]) == 0
    assert main(["train", "celeba64-multiview", "--layers", *LAYERS, "--out", str(folder / "all"), *common]) == 0
    return folder


def weights(run):
    return load_file(run / "checkpoints" / "step-00000003" / "model.safetensors")


@pytest.mark.parametrize("layer", LAYERS)
def test_each_view_is_the_run_of_its_own(runs, layer):
    together, alone = weights(runs / "all"), weights(runs / layer)
    together = {k.replace(f"{layer}.", "", 1): value for k, value in together.items() if f"{layer}." in k}
    # All averages advance by one step counter, which has the name of the first view.
    assert together.keys() - {"ema.vae"} == alone.keys() - {"ema.vae"}
    for key in alone.keys() & together.keys():
        # The loss network takes real and generated images in one call there and in two here, which round differently.
        assert torch.allclose(together[key], alone[key], rtol=1e-3, atol=1e-4), key


def test_what_is_logged_is_what_the_runs_of_their_own_log(runs, flags):
    def last(run, term):
        lines = [json.loads(line) for line in (runs / run / "stats.jsonl").read_text().splitlines()]
        return next(line[term] for line in reversed(lines) if term in line)

    for layer in LAYERS:
        for term in ("kl", "rec", "critic", *(("gan_to_rec", "label_scale", "gan_limit") if "held" in flags else ())):
            assert last("all", f"{layer}_{term}") == pytest.approx(last(layer, term), rel=1e-3, abs=1e-4)
        assert last("all", f"held_out_{layer}_psnr_db") == pytest.approx(last(layer, "held_out_psnr_db"), rel=1e-3)
        assert (runs / "all" / "pictures" / f"samples-{layer}-00000003.png").exists()


def test_views_are_loaded_by_name(runs):
    views = load_views(runs / "all")
    assert list(views) == [f"all/{layer}" for layer in LAYERS]
    vae = fastvae.load(runs / "all" / "relu2_1")
    z = torch.randn(2, 4)
    assert torch.equal(vae.decode(z), views["all/relu2_1"].decode(z))
    assert not torch.equal(vae.decode(z), views["all/relu1_1"].decode(z))
    assert vae.run.held_out["psnr_db"] > 0 and vae.run.picture.name == "reconstructions-relu2_1-00000003.png"
    assert vae.run.losses.keys() == fastvae.load(runs / "relu2_1").run.losses.keys()
    assert list(load_views(runs / "relu1_1")) == ["relu1_1"]
    assert list(load_views(runs / "all" / "relu1_1")) == ["all/relu1_1"]


def test_a_view_is_saved_as_a_model_of_its_own(runs, tmp_path):
    vae = fastvae.load(runs / "all" / "relu2_1")
    vae.save_pretrained(tmp_path / "saved")
    z = torch.randn(2, 4)
    assert torch.equal(fastvae.load(tmp_path / "saved").decode(z), vae.decode(z))
    assert "relu2_1" in (tmp_path / "saved" / "README.md").read_text()


def test_a_view_must_be_named_and_exist(runs):
    with pytest.raises(FastvaeError, match=r"holds the views relu1_1, relu2_1: name one, as in .*all/relu1_1"):
        fastvae.load(runs / "all")
    with pytest.raises(FastvaeError, match="has no view 'relu1_2', did you mean 'relu1_1'"):
        fastvae.load(runs / "all" / "relu1_2")
    with pytest.raises(FastvaeError, match="has no view 'relu1_1': it is of one model; leave it out"):
        fastvae.load(runs / "relu1_1" / "relu1_1")


def test_a_view_of_one_checkpoint(runs, tmp_path):
    newest = latest(runs / "all")
    assert fastvae.load(newest / "relu2_1").run.step == 3
    assert fastvae.load(newest / "model.safetensors" / "relu2_1").run.step == 3
    older = tmp_path / "copy" / "checkpoints" / "step-00000001"
    shutil.copytree(newest, older)
    shutil.copytree(newest, older.with_name("step-00000002"))
    for given in (older, older / "model.safetensors"):
        with pytest.raises(FastvaeError, match=r"name one, as in (.*)") as refused:
            fastvae.load(given)
        advised = str(refused.value).rpartition("as in ")[2]
        assert advised == str(older / "relu1_1") and fastvae.load(advised).latent == 4


# A KL that rises does so over a share of all steps, which are fewer in a run that is broken off by --steps.
@pytest.mark.parametrize("flags", [BALANCED], indirect=True, ids=["balanced"])
def test_it_goes_on_where_it_stopped(runs, flags, packed, tmp_path):
    common = ["--data", str(packed.path), *flags, "--layers", *LAYERS, "--out", str(tmp_path / "run")]
    assert main(["train", "celeba64-multiview", *common, "--steps", "2"]) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps", "3"]) == 0
    resumed, whole = weights(tmp_path / "run"), weights(runs / "all")
    assert all(torch.equal(resumed[k], whole[k]) for k in whole)
