"""What a training step keeps for its backward pass: a known amount, the same on fake and on real tensors."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench.anatomy import memory
from fastvae.config import ModelConfig
from fastvae.models import VAE, Critic
from fastvae.objectives.base import Pass
from fastvae.recipes import RECIPES
from fastvae.train.build import build, resolve


@pytest.mark.parametrize("bf16", [False, True])
def test_each_storage_counts_once_and_weights_do_not(bf16):
    layer = nn.Linear(6, 10, bias=False)

    def loss(images, noise):
        y = layer(noise)  # saves the noise, 3 x 6 numbers, and a weight would not count
        z = y.exp()  # saves its result, 3 x 10 numbers
        return (z * z.view(-1)[:30].view(3, 10)).sum(), {}  # saves the same storage twice more

    objective = SimpleNamespace(networks={"one": layer}, loss_network=None, passes=lambda _: (Pass("all", loss, ()),))
    found = memory.saved_bytes(objective, torch.zeros(3, 3, 8, 8), torch.randn(3, 6), bf16=bf16)
    assert found == (2 if bf16 else 4) * (18 + 30)


def test_what_is_counted_is_what_a_real_step_keeps():
    config = RECIPES["demo"]()
    model = ModelConfig(image_size=32, width=2, latent=3)
    train = replace(config.train, device="cpu", precision="fp32", compile="off")
    config = resolve(replace(config, model=model, train=train))[0]
    objective = build(config).objective
    two, four = (
        memory.saved_bytes(objective, torch.randn(n, 3, 32, 32), torch.randn(n, 3), bf16=False) for n in (2, 4)
    )
    counted = memory.memory_of(config)
    assert counted.saved["fp32"] == (four - two) // 2 > 10 * counted.saved["bf16"] // 21
    vae, critic = VAE(32, 2, 3), Critic(32, 2)
    assert sum(counted.parameters.values()) == sum(p.numel() for net in (vae, critic) for p in net.parameters())


def test_the_table_has_a_row_for_each_size(capsys):
    assert memory.main(["--recipe", "celeba64-plain", "--image-size", "28", "64", "--batch-size", "32"]) == 0
    head, _, small, large = capsys.readouterr().out.splitlines()
    assert "batch of 32, bf16, GB" in head
    assert small.startswith("| 28x28 | 2 |") and large.startswith("| 64x64 | 4 |")


def test_views_that_share_a_loss_network_are_counted():
    model = ModelConfig(image_size=16, width=2, latent=3)
    counted = memory.memory_of(replace(RECIPES["celeba64-multiview"](), model=model))
    one = memory.memory_of(replace(RECIPES["celeba64-relu1_1"](), model=model))
    assert sum(counted.parameters.values()) == 5 * sum(one.parameters.values())
    assert counted.saved["fp32"] > 5 * one.saved["fp32"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image-size", "33"], "32 and 40 are the nearest"),
        (["--image-size", "8"], "relu5_1"),
        (["--batch-size", "0"], "--batch-size must be 1 or more"),
    ],
)
def test_what_cannot_be_counted_is_an_error_and_no_traceback(capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        memory.main(flags)
    assert message in capsys.readouterr().err
