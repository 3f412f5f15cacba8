"""Weighted squared distance between two lists of feature maps: the feature reconstruction loss.

    L_l   = 1 / (2 C_l W_l H_l) sum_{c,w,h} (Phi_l(x) - Phi_l(x'))^2       (Hou et al., eq. 5)
    L_rec = sum_l weight_l L_l,   weight_l = 100 / C_l^2                   (eq. 6)

averaged over the batch. Accumulated in float32 whatever the features' dtype (float64 stays float64), because the
squares of bfloat16 features span more than its eight bits. The targets get no gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def paper_weights(channels: Sequence[int]) -> tuple[float, ...]:
    """The layer weights 100 / C_l^2 of equation 6, for layers with these channel counts."""
    return tuple(100.0 / c**2 for c in channels)


def feature_loss_ref(features: Sequence[Tensor], targets: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The specification of `feature_loss`: equations 5 and 6 to the letter, one image at a time, in float64."""
    images = features[0].shape[0]
    total = torch.zeros((), dtype=torch.float64, device=features[0].device)
    for i in range(images):
        for feature, target, weight in zip(features, targets, weights, strict=True):
            c, h, w = feature.shape[1:]
            difference = feature[i].double() - target[i].double().detach()
            total = total + weight * difference.square().sum() / (2 * c * w * h)
    return total / images


def feature_loss(features: Sequence[Tensor], targets: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted feature reconstruction loss of all layers, mean over the batch (eq. 5 and 6).

    Args:
        features: L tensors [B, C_l, H_l, W_l], of the generated images.
        targets: L tensors of the same shapes, of the originals; treated as constants.
        weights: L numbers that multiply the layers' losses, `paper_weights` or others.

    Returns:
        A scalar, float32 (float64 for float64 features).

    Raises:
        ValueError: the three lists differ in length, are empty, or a pair differs in shape.
    """
    if not (len(features) == len(targets) == len(weights)) or not features:
        raise ValueError(
            "feature_loss expects as many features as targets and weights, at least one; "
            f"got {len(features)}, {len(targets)} and {len(weights)}"
        )
    total = None
    for feature, target, weight in zip(features, targets, weights, strict=True):
        if feature.shape != target.shape:
            raise ValueError(f"feature_loss expects equal shapes; got {list(feature.shape)} and {list(target.shape)}")
        accumulate = torch.promote_types(feature.dtype, torch.float32)
        difference = feature.to(accumulate) - target.detach().to(accumulate)
        layer = difference.square().mean() * (0.5 * weight)
        total = layer if total is None else total + layer
    return total
