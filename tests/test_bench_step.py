"""The peer of the step benchmark must be an honest one: the same model, trained by the same gradients."""

import torch

from bench.bench_step import check_same_step
from fastvae.lossnet import load_loss_network


def test_the_plain_step_is_the_same_step():
    pixels = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    check_same_step(load_loss_network("random"), pixels, torch.randn(4, 100))
