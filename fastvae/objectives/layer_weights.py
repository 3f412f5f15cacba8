"""What each layer of the feature loss is multiplied by."""

from collections.abc import Sequence
from typing import Literal

from fastvae.kernels.feature_loss import paper_weights

LayerWeights = Literal["paper", "unit", "equal"]

# Each layer's part of L_rec by eq. 6 on CelebA at 64x64, nats: 260 training images against the mean of 2,000, original
# Caffe VGG-19.
_PARTS = {"relu1_1": 20.8, "relu2_1": 134.0, "relu3_1": 68.1, "relu4_1": 205.0, "relu5_1": 7.4}


def layer_weights(choice: LayerWeights, layers: Sequence[str], channels: Sequence[int]) -> tuple[float, ...]:
    """The weights w_l of L_rec = sum_l w_l L_l.

    Args:
        choice: "paper", 100 / C_l^2 (eq. 6); "unit", 1, as DFC-VAE has them; "equal", eq. 6 times factors that give
            each of the n layers an n-th of what all five have together, so that one layer alone is as large beside the
            KL divergence as all five. They are constants of CelebA at 64x64 and the Caffe weights.
        layers: names.
        channels: C_l of each.
    """
    if choice == "unit":
        return (1.0,) * len(layers)
    weights = paper_weights(channels)
    if choice == "paper":
        return weights
    level = sum(_PARTS.values()) / len(layers)
    return tuple(weight * level / _PARTS[layer] for weight, layer in zip(weights, layers, strict=True))
