"""Layers and small models for the tests of swap_."""

import functools
import warnings

import torch.nn.functional as F
from torch import nn


def conv(i=2, o=2, kernel_size=3, **kwargs):
    return nn.Conv2d(i, o, kernel_size, **{"padding": 1, "padding_mode": "replicate"} | kwargs)


def unpadded(i=2, o=2):
    return nn.Conv2d(i, o, 3)


def up(**kwargs):
    return nn.Upsample(**{"scale_factor": 2} | kwargs)


class Interpolating(nn.Module):
    """No Sequential: the Upsample runs after the convolution before which it is defined, and another is a function."""

    def __init__(self):
        super().__init__()
        self.up = up()
        self.first = conv()
        self.second = conv(bias=False)

    def forward(self, x):
        return self.second(F.interpolate(self.up(self.first(x)), scale_factor=2, mode="nearest"))


class Reversed(nn.Sequential):
    def forward(self, x):
        for module in reversed(self):
            x = module(x)
        return x


def with_the_order_set_on_the_object():
    model = nn.Sequential(up(), conv())
    model.forward = functools.partial(Reversed.forward, model)
    return model


def sharing_a_convolution():
    shared = conv()
    return nn.Sequential(up(), shared, nn.ReLU(), shared)


def sharing_a_block():
    block = nn.Sequential(conv(), nn.ReLU(), up(), conv())
    return nn.Sequential(up(), block, nn.Tanh(), block)


def hooked(module):
    module.register_forward_hook(lambda *_: None)
    return module


def compiled(module):
    module.compile(backend="eager")
    return module


def deprecated(function, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(module)
