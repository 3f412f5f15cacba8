"""The number of stages in a run's files; models of before it was written there, which all have four."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import fastvae
from fastvae.cli import main
from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.errors import UsageError
from fastvae.export.parts import BOUND, PARTS, parts_of, worst_error
from fastvae.objectives.vae_wgan import VaeWganOptions
from fastvae.pictures import to_images
from fastvae.runs.sampler import load_sampler
from fastvae.train.build import build
from fastvae.train.checkpoint_files import latest, read_metadata
from tests.train.conftest import SMALL


def forget_stages(folder: Path) -> Path:
    """Removes the number of stages from all files below a folder, as if an earlier version had written them."""
    for path in folder.rglob("config.json"):
        values = json.loads(path.read_text())
        del values.get("model", values)["stages"]
        path.write_text(json.dumps(values))
    for path in folder.rglob("model.safetensors"):
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values = json.loads(metadata["fastvae"])
        del values["config"]["model"]["stages"]
        save_file(tensors, path, {**metadata, "fastvae": json.dumps(values)})
    return folder


def _listed(result: torch.Tensor | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def four_stages(packed, tmp_path_factory) -> Path:
    """A run at 32x32, where three stages are the rule, with checkpoints of steps 1 and 2."""
    run = tmp_path_factory.mktemp("four_stages") / "run"
    flags = [*SMALL, "--stages", "4", "--steps", "2", "--checkpoint-every", "1"]
    assert main(["train", "celeba64-literal", "--data", str(packed.path), *flags, "--out", str(run)]) == 0
    return run


@pytest.fixture
def old(four_stages, tmp_path) -> Path:
    """The same run as an earlier version wrote it."""
    return forget_stages(Path(shutil.copytree(four_stages, tmp_path / "old", symlinks=True)))


def test_a_run_says_how_many_it_has(run, four_stages):
    for folder, stages in ((run, 3), (four_stages, 4)):
        assert json.loads((folder / "config.json").read_text())["model"]["stages"] == stages
        assert read_metadata(latest(folder) / "model.safetensors")["config"]["model"]["stages"] == stages
        vae = fastvae.load(folder)
        assert vae.stages == len(vae.encoder.stages) == stages
    assert fastvae.load(run).decoder.map_shape == (8, 4, 4)


def test_an_old_run_goes_on_as_before(old, four_stages, capsys):
    shutil.rmtree(latest(old))
    assert main(["train", "--resume", str(old), "--stages", "3"]) == 2
    assert "keeps its model" in capsys.readouterr().err
    assert main(["train", "--resume", str(old)]) == 0
    expected, found = weights_of(latest(four_stages)), weights_of(latest(old))
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)
    assert json.loads((old / "config.json").read_text())["model"]["stages"] == 4


def test_old_weights_load_wherever_they_lie(old, four_stages, packed, tmp_path):
    """A run, a checkpoint, a file and a saved folder; accelerated, and saved again with the number."""
    images = to_images(torch.from_numpy(np.array(packed.images[:3])))
    with torch.no_grad():
        expected = fastvae.load(four_stages).reconstruct(images)
    file = shutil.copy(latest(old) / "model.safetensors", tmp_path / "copy.safetensors")
    fastvae.load(old).save_pretrained(tmp_path / "saved")
    values = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (values["image_size"], values["stages"]) == (32, 4)
    assert "4 stages" in (tmp_path / "saved" / "README.md").read_text()
    again = forget_stages(Path(shutil.copytree(tmp_path / "saved", tmp_path / "saved before")))
    for place in (old, latest(old), file, tmp_path / "saved", again):
        vae = fastvae.load(place)
        with torch.no_grad():
            assert vae.stages == 4 and torch.equal(vae.reconstruct(images), expected)
    for part in parts_of(fastvae.load(old), PARTS):  # what is exported
        assert worst_error(part, lambda x, part=part: _listed(part.module(x))) <= BOUND
    fast = fastvae.load(old).accelerate()
    assert fast.stages == 4
    assert (fast.reconstruct(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_commands_take_an_old_run(old, packed, tmp_path):
    data = ["--data", str(packed.path)]
    assert main(["generate", str(old), "--out", str(tmp_path / "samples.png"), "--count", "2"]) == 0
    assert main(["figures", "reconstructions", str(old), *data, "--out", str(tmp_path / "pairs.png")]) == 0


def test_an_old_generator_loads(packed, tmp_path):
    flags = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--steps", "1"]
    flags += ["--precision", "fp32", "--device", "cpu", "--stages", "4", "--out", str(tmp_path / "gan")]
    assert main(["train", "cifar10-dcgan", "--data", str(packed.path), *flags]) == 0
    before, z = load_sampler(tmp_path / "gan"), torch.randn(2, 4)
    after = load_sampler(forget_stages(tmp_path / "gan"))
    assert after.stages == 4 and torch.equal(before(z), after(z))


def test_sizes_that_are_refused_say_what_would_fit(capsys, tmp_path):
    for flags, words in (
        (["--image-size", "44"], "40 and 48 are the nearest, or choose the number of stages, 1 to 2"),
        (["--image-size", "144"], "128 and 160 are the nearest"),
        (["--image-size", "45", "--stages", "1"], "it cannot be halved"),
        (["--stages", "7"], "7 stages do not fit an image size of 64: expected 1 to 6"),
        (["--stages", "0"], "stages must be from 1 to 10; got 0"),
        (["--image-size", "1024", "--stages", "1", "--latent", "500"], "give more stages"),
    ):
        assert main(["train", "demo", *flags, "--out", str(tmp_path / "run")]) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
    small = ModelConfig(image_size=8, width=1, latent=2)
    train = TrainConfig(device="cpu", precision="fp32", compile="off")
    with pytest.raises(UsageError, match="needs images of 16x16 or more for relu5_1; these have 8x8"):
        build(Config("test", VaeWganOptions(vgg="random"), model=small, train=train))
