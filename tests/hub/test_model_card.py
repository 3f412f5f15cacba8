"""What the card says is what the run says."""

import json
import re
from dataclasses import replace

import pytest
import torch
import yaml

import fastvae
from fastvae.hub.model_card import model_card


@pytest.fixture(scope="module")
def vae(run):
    return fastvae.load(run)


def test_numbers_are_the_run_s(vae, run):
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    card = model_card(vae, vae.run, picture="a.png", license=None)
    held_out = [line for line in lines if "held_out_psnr_db" in line][-1]
    losses = [line for line in lines if "kl" in line][-1]
    assert f"| PSNR, dB, held out | {held_out['held_out_psnr_db']:.4g} |" in card
    assert f"| KL divergence, nats, training | {losses['kl']:.4g} |" in card
    assert "3 steps of 8 images (24 images" in card and "| recipe | celeba64-plain |" in card
    assert "![Held-out images and their reconstructions](a.png)" in card
    several = replace(vae.run, losses=vae.run.losses | {"ranks": 2, "epoch": 0.5})
    schedule = "| schedule | 3 steps of 16 images, 8 in each of 2 processes, 0.50 epochs |"
    assert schedule in model_card(vae, several, picture=None, license=None)
    assert "augmentation" not in card
    flipped = replace(vae.run, config=vae.run.config | {"train": vae.run.config["train"] | {"flip": True}})
    assert "| augmentation | horizontal flips |" in model_card(vae, flipped, picture=None, license=None)


@pytest.mark.parametrize("license", [None, "cc-by-4.0"])
def test_the_header_is_what_the_hub_reads(vae, license):
    _, header, _ = model_card(vae, vae.run, picture=None, license=license).split("---\n", 2)
    values = yaml.safe_load(header)
    assert values["library_name"] == "fastvae" and "vae" in values["tags"]
    assert values.get("license") == license


def test_the_code_runs(vae, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", model_card(vae, vae.run, picture=None, license=None), re.DOTALL)
    vae.save_pretrained(tmp_path)
    names = {"images": torch.zeros(2, 3, 32, 32)}
    exec(code.replace("PATH OR user/name", str(tmp_path)), names)
    assert names["mean"].shape == (2, 4) and names["faces"].shape == (16, 3, 32, 32)


def limits(vae, **changes) -> str:
    other = fastvae.VAE(32, width=2, latent=4)
    other.run = replace(vae.run, **changes)
    return model_card(other, other.run, picture=None, license=None).partition("## Limits")[2]


def test_limits_follow_from_the_run(vae):
    objective = vae.run.config["objective"]
    assert "stand-in" in limits(vae, config=vae.run.config | {"objective": objective | {"vgg": "random"}})
    assert "stand-in" not in limits(vae, config=vae.run.config | {"objective": objective | {"vgg": "caffe"}})
    assert "5.00 epochs" not in limits(vae, losses={"epoch": 5.0, "kl": 50.0})
    assert "trained for 1.50 epochs" in limits(vae, losses={"epoch": 1.5})
    assert "8.0 nats" in limits(vae, losses={"kl": 8.0})


def test_a_run_that_logged_nothing(vae):
    other = fastvae.VAE(32, width=2, latent=4)
    other.run = replace(vae.run, losses={}, held_out={}, version=None)
    card = model_card(other, other.run, picture=None, license=None)
    assert "unknown version" in card and "At step" not in card
