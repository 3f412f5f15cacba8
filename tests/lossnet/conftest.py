"""Synthetic VGG-19 weights: the right shapes, and the colour filter by which a kind is recognised."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastvae.lossnet import convention
from fastvae.lossnet.network import conv_layers

Make = Callable[..., dict[str, Tensor]]


@pytest.fixture(scope="session")
def make_weights() -> Make:
    """Makes weights of a kind ("caffe", "torchvision", "unknown") up to an index (5 is conv2_1)."""

    def make(kind: str = "caffe", up_to: int = 5, seed: int = 0) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for index, (_, inputs, outputs) in conv_layers().items():
            if index <= up_to:
                weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * math.sqrt(2 / (9 * inputs))
                tensors[f"features.{index}.weight"] = weight
                tensors[f"features.{index}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        if kind == "caffe":
            tensors["features.0.weight"][convention._CAFFE_FILTER] = torch.tensor(convention._CAFFE)
        elif kind == "torchvision":
            tensors["features.0.weight"][convention._TORCHVISION_FILTER] = torch.tensor(convention._TORCHVISION)
        return tensors

    return make


@pytest.fixture
def images() -> Tensor:
    """[2, 3, 24, 32] float32 in [-1, 1]: not square, two images."""
    return torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
