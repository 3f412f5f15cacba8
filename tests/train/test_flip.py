"""`--flip`: which images a step sees mirrored, in whichever way they come to it, and what is never mirrored."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fastvae.data.flips import flips
from fastvae.objectives import Pass
from fastvae.objectives.vae_wgan import VaeWgan
from fastvae.pictures import to_images
from fastvae.train.checkpoint_files import latest
from fastvae.train.step import Step


@pytest.fixture
def folder(packed, tmp_path):
    """The same images in the same order as picture files."""
    for index, image in enumerate(packed.images):
        split = tmp_path / "pictures" / ("train" if packed.splits[index] == 0 else "val")
        split.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image)).save(split / f"{index:03d}.png")
    return tmp_path / "pictures"


@pytest.fixture
def seen(monkeypatch):
    """What the objective is given: the images of every step, and those that the balance is measured at."""
    seen, loss = SimpleNamespace(steps=[], balance=[]), VaeWgan.loss

    def noting(self, images, noise):
        seen.steps.append(images.clone())
        return loss(self, images, noise)

    monkeypatch.setattr(VaeWgan, "loss", noting)
    monkeypatch.setattr(VaeWgan, "balance", lambda self, images, noise: seen.balance.append(images.clone()) or {})
    return seen


@pytest.mark.parametrize("compiled", [None, "eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_step_mirrors_exactly_what_it_is_told(compiled, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, backend=compiled, **options))
    weight = torch.ones((), requires_grad=True)
    part = Pass("only", lambda images, noise: (images.mean() * weight, {"images": images}), ())
    objective = SimpleNamespace(passes=lambda step: (part,), networks={})
    step = Step(objective, {}, device=torch.device("cpu"), compile_passes=compiled is not None)
    pixels = torch.randint(256, (4, 6, 5, 3), dtype=torch.uint8)
    for told in (torch.tensor([True, False, False, True]), torch.tensor([2, 0, 0, -1])):
        expected = to_images(torch.stack([pixels[0].flip(1), pixels[1], pixels[2], pixels[3].flip(1)]))
        found = step(pixels, torch.zeros(4, 1), 0, told)["images"]
        assert torch.equal(found, expected) and found.stride() == step.images(pixels).stride()
        assert torch.equal(step.images(pixels, told), expected)
    assert torch.equal(step(pixels, torch.zeros(4, 1), 0)["images"], to_images(pixels))


def test_a_run_sees_the_same_images_however_they_come(train, packed, folder, tmp_path, seen):
    """40 training images in batches of 8: five steps an epoch. The weights after seven steps are equal to the bit."""

    def after(name: str, *flags: str) -> dict[str, torch.Tensor]:
        seen.steps.clear(), seen.balance.clear()
        out = ["--resume", str(tmp_path / name)] if "--resume" in flags else ["--out", str(tmp_path / name)]
        flags = [flag for flag in flags if flag != "--resume"]
        assert train(*out, *flags) == 0
        return load_file(latest(tmp_path / name) / "model.safetensors")

    usual = ["--steps", "7", "--compile", "off", "--balance-every", "1"]
    flipped = after("flipped", *usual, "--flip")
    order = [np.random.PCG64(np.random.SeedSequence(0, spawn_key=(e,))).random_raw(40).argsort() for e in range(2)]
    for step, images in enumerate(seen.steps):
        epoch, start = step // 5, step % 5 * 8
        positions = order[epoch][start : start + 8]
        told = torch.from_numpy(flips(positions, seed=0, epoch=epoch))[:, None, None, None]
        pixels = torch.from_numpy(packed.images[:40][positions])
        assert torch.equal(images, to_images(torch.where(told, pixels.flip(2), pixels)))
        assert torch.equal(seen.balance[step], images)
    pillow = after("pillow", *usual, "--flip", "--loader", "pillow", "--data", str(folder))
    after("resumed", *usual, "--flip", "--steps", "3")
    resumed = after("resumed", "--resume", "--steps", "7", "--resident", "on")
    for other in (pillow, resumed):
        assert all(torch.equal(other[name], flipped[name]) for name in flipped)
    after("plain", *usual, "--steps", "1")
    # Held-out images are as they are: before the first step both runs measure the same.
    first = [json.loads((tmp_path / run / "stats.jsonl").read_text().splitlines()[0]) for run in ("plain", "flipped")]
    assert first[0] == first[1] and "held_out_rec" in first[0]


def test_a_run_keeps_its_flips(train, tmp_path, capsys):
    assert train("--steps", "1") == 0
    assert train("--resume", str(tmp_path / "run"), "--steps", "2", "--flip") == 2
    assert "a resumed run keeps" in capsys.readouterr().err
