"""Configs as JSON, and the recipes."""

import json
from dataclasses import replace

import pytest

from fastvae.config import ModelConfig
from fastvae.errors import FastvaeError, suggest
from fastvae.lossnet.network import TAPS
from fastvae.objectives.vae_wgan import CriticForm, critic_form
from fastvae.recipes import RECIPES
from fastvae.train.config_json import from_json, to_json


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    config = RECIPES[name]()
    assert config.recipe == name
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    assert RECIPES[name].description.endswith(".")


def test_the_papers_schedule():
    config = RECIPES["celeba64"]()
    assert (config.train.epochs, config.train.batch_size, config.train.lr, config.train.lr_decay) == (5, 64, 5e-4, 0.5)
    assert (config.model.image_size, config.model.latent, config.model.width) == (64, 100, 32)
    assert (config.objective.alpha, config.objective.beta, config.objective.critic) == (0.5, 0.5, "held")
    assert RECIPES["celeba64-wide"]().model.width == 64
    cifar = RECIPES["cifar10"]()
    assert cifar.model.image_size == 32 and cifar.train == config.train
    assert cifar.objective == replace(config.objective, alpha=1)
    for name in ("celeba64", "cifar10"):
        literal = RECIPES[f"{name}-literal"]()
        given = {"alpha": 1, "beta": 0.5, "layers": TAPS, "layer_weights": "paper", "kl_warmup": 0, "order": "together"}
        assert given.items() <= vars(literal.objective).items() and literal.train.ema == 0
        form = CriticForm(label_scale=10, clip=0.01, clipped="weights", optimizer="adam", lr=None)
        assert critic_form(literal.objective) == form
        assert literal.model == RECIPES[name]().model
    assert RECIPES["celeba128"]() == replace(
        config, recipe="celeba128", data="celeba128.fvae", model=ModelConfig(image_size=128)
    )
    assert RECIPES["demo"]().objective.vgg == "random"


def test_configs_of_another_version():
    values = to_json(RECIPES["demo"]())
    with pytest.raises(FastvaeError, match="this version has no objective 'vae_wgn', did you mean 'vae_wgan'"):
        from_json({**values, "objective": {**values["objective"], "name": "vae_wgn"}})
    with pytest.raises(FastvaeError, match="model has a field 'colour', which this version does not know"):
        from_json({**values, "model": {**values["model"], "colour": 1}})


def test_what_a_later_version_adds_to_the_schedule_is_ignored_with_a_warning(caplog):
    config = RECIPES["demo"]()
    values = to_json(config)
    assert from_json({**values, "train": {**values["train"], "colour": 1}, "later": []}) == config
    assert "train.colour" in caplog.text


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("train", "epochs", "5"),
        ("train", "epochs", 0),
        ("train", "epochs", True),
        ("train", "lr", float("nan")),
        ("train", "device", "tpu"),
        ("train", "seed", 2**64),
        ("model", "width", 10**5),
        ("model", "latent", 1.5),
        ("objective", "layers", "relu1_1"),
        ("objective", "layers", ["relu9_9"]),
        ("objective", "name", None),
    ],
)
def test_values_that_no_config_has(section, field, value):
    values = to_json(RECIPES["demo"]())
    with pytest.raises(FastvaeError):
        from_json({**values, section: {**values[section], field: value}})


def test_suggestions():
    assert suggest("celeba46", RECIPES) == ", did you mean 'celeba64'?"
    assert "demo" in suggest("xyz", RECIPES)
