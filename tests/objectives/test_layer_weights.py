"""The weights of the feature loss's layers."""

import pytest

from fastvae.lossnet.network import TAPS
from fastvae.objectives.layer_weights import _PARTS, layer_weights

CHANNELS = dict(zip(TAPS, (64, 128, 256, 512, 512), strict=True))


def test_the_papers_and_dfc_vaes():
    assert layer_weights("paper", ("relu2_1", "relu5_1"), (128, 512)) == (100 / 128**2, 100 / 512**2)
    assert layer_weights("unit", TAPS, list(CHANNELS.values())) == (1, 1, 1, 1, 1)


@pytest.mark.parametrize("layers", [*((tap,) for tap in TAPS), ("relu5_1", "relu1_1"), TAPS])
def test_equal_ones_give_all_layers_the_same_part_of_what_five_have(layers):
    channels = [CHANNELS[layer] for layer in layers]
    equal, paper = (layer_weights(choice, layers, channels) for choice in ("equal", "paper"))
    factors = [a / b for a, b in zip(equal, paper, strict=True)]
    parts = [factor * _PARTS[layer] for factor, layer in zip(factors, layers, strict=True)]
    assert sum(parts) == pytest.approx(sum(_PARTS.values())) and parts == pytest.approx([parts[0]] * len(parts))
