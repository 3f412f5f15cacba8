"""Weighted squared distance between two lists of feature maps: the feature reconstruction loss.

    L_l   = 1 / (2 C_l W_l H_l) sum_{c,w,h} (Phi_l(x) - Phi_l(x'))^2       (Hou et al., eq. 5)
    L_rec = sum_l weight_l L_l,   weight_l = 100 / C_l^2                   (eq. 6)

averaged over the batch, so with n_l = B C_l W_l H_l elements

    L_rec = sum_l weight_l / (2 n_l) sum d_l^2,   d_l = Phi_l(x) - Phi_l(x'),   dL_rec / dPhi_l(x) = weight_l / n_l d_l

Accumulated in float32 for all dtypes (float64 stays float64), because eight bits of bfloat16 are too few for sums of
squares. The targets get no gradient.

Layout: any, since all elements are treated alike; features and targets of the same layout are read in the order of
memory. The forward pass writes nothing but the loss: it saves features and targets, which the networks before it keep
in any case, and the backward pass subtracts them again. There d_l and its factor are float32, and only their product is
rounded to the features' dtype, with the loss scale in it: in float16 the factor alone may underflow, weight_1 / n_1 is
1e-9 for relu1_1 of 64 images. Per element 2 reads and 3 flops; see `cost`.
"""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from .cost import Cost
from .dispatch import SOURCES, is_taken_apart, provider
from .traceable_op import traceable_op


def paper_weights(channels: Sequence[int]) -> tuple[float, ...]:
    """The layer weights 100 / C_l^2 of equation 6, for layers with these channel counts."""
    return tuple(100.0 / c**2 for c in channels)


def feature_loss_ref(features: Sequence[Tensor], targets: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The specification of `feature_loss`: equations 5 and 6 as written, one image at a time, in float64."""
    images = features[0].shape[0]
    total = torch.zeros((), dtype=torch.float64, device=features[0].device)
    for i in range(images):
        for feature, target, weight in zip(features, targets, weights, strict=True):
            c, h, w = feature.shape[1:]
            difference = feature[i].double() - target[i].double().detach()
            total = total + weight * difference.square().sum() / (2 * c * w * h)
    return total / images


def _forward_aten(features: list[Tensor], targets: list[Tensor], weights: list[float]) -> Tensor:
    """For CPUs, older GPUs and float64."""
    accumulate = _accumulated_in(features[0].dtype)
    total = torch.zeros((), dtype=accumulate, device=features[0].device)
    for feature, target, weight in zip(features, targets, weights, strict=True):
        total = total + F.mse_loss(feature.to(accumulate), target.to(accumulate)) * (0.5 * weight)
    return total


def _accumulated_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@traceable_op("fastvae::feature_loss")
def _forward(
    features: list[Tensor], targets: list[Tensor], weights: list[float], through_relu: bool, sources: str
) -> Tensor:
    """The loss; `through_relu` is for the backward pass alone."""
    if provider("feature_loss", features[0]) == "triton":
        from . import feature_loss_triton as triton

        if tile := triton.choose_tile(features):
            return triton.forward(features, targets, weights, tile)
    return _forward_aten(features, targets, weights)


def _save(ctx, inputs, output) -> None:
    features, targets, ctx.weights, ctx.through_relu, _ = inputs
    ctx.save_for_backward(*features, *targets)


def _backward(ctx, grad: Tensor):
    # Plain torch, no kernel: under torch.compile Inductor fuses this into the sum of gradients at the tap, which then
    # reads feature and target in place of a gradient.
    saved, layers = ctx.saved_tensors, len(ctx.weights)  # read once: checkpointing recomputes them at each access
    features, targets = saved[:layers], saved[layers:]
    gradients = [
        _gradient(feature, target, grad * (weight / max(feature.numel(), 1)), ctx.through_relu) if wanted else None
        for feature, target, weight, wanted in zip(features, targets, ctx.weights, ctx.needs_input_grad[0], strict=True)
    ]
    return gradients, [None] * layers, None, None, None


def _gradient(feature: Tensor, target: Tensor, factor: Tensor, through_relu: bool) -> Tensor:
    accumulate = _accumulated_in(feature.dtype)
    gradient = (feature.to(accumulate) - target.to(accumulate)) * factor
    if through_relu:
        gradient = torch.where(feature <= 0, 0, gradient)  # not feature > 0, so that NaN stays NaN
    return gradient.to(feature.dtype)


_forward.register_autograd(_backward, setup_context=_save)


def _constant(target: Tensor) -> Tensor:
    # What was computed in inference mode cannot be saved for a backward pass.
    if not torch.compiler.is_compiling() and target.is_inference() and not torch.is_inference_mode_enabled():
        return target.clone()
    return target.detach()


def feature_loss(
    features: Sequence[Tensor], targets: Sequence[Tensor], weights: Sequence[float], *, through_relu: bool = False
) -> Tensor:
    """Weighted feature reconstruction loss of all layers, mean over the batch (eq. 5 and 6).

    Source: Hou et al., section 3.3.

    Args:
        features: L tensors [B, C_l, H_l, W_l], of the generated images, of one floating-point dtype.
        targets: L tensors of the same shapes, dtype and device, of the originals; treated as constants.
        weights: L Python numbers that multiply the layers' losses, `paper_weights` or others.
        through_relu: the features are outputs of a ReLU, and the gradient is the one with respect to its input: zero
            where the feature is zero. Saves a kernel that would apply the mask; if the ReLU's backward masks again, the
            result is the same.

    Returns:
        A scalar, float32 (float64 for float64 features). Differentiable by reverse-mode autograd; exported and
        under torch.func's transforms it consists of torch's own operations. An empty batch gives NaN, as the mean of
        nothing does in torch.

    Raises:
        ValueError: the three lists differ in length or are empty, a pair differs in shape, the features and targets
            are not all of one floating-point dtype and on one device, or a weight is a tensor.
    """
    features, targets = list(features), list(targets)
    _check(features, targets, weights)
    constants = [_constant(target) for target in targets]
    numbers = [float(weight) for weight in weights]
    if is_taken_apart():
        if through_relu:
            features = [torch.where(feature <= 0, feature.detach(), feature) for feature in features]
        return _forward_aten(features, constants, numbers)
    return _forward(features, constants, numbers, through_relu, SOURCES)


def _check(features: list[Tensor], targets: list[Tensor], weights: Sequence[float]) -> None:
    if not (len(features) == len(targets) == len(weights)) or not features:
        raise ValueError(
            "feature_loss expects as many features as targets and weights, at least one; "
            f"got {len(features)}, {len(targets)} and {len(weights)}"
        )
    first = features[0]
    if not first.is_floating_point():
        raise ValueError(f"feature_loss expects features of floating point; got {first.dtype}")
    for layer, (feature, target, weight) in enumerate(zip(features, targets, weights, strict=True)):
        if feature.shape != target.shape:
            shapes = f"{list(feature.shape)} and {list(target.shape)}"
            raise ValueError(f"feature_loss expects equal shapes; got {shapes} for layer {layer}")
        if not (feature.dtype == target.dtype == first.dtype):
            raise ValueError(
                f"feature_loss expects one dtype, {first.dtype} as layer 0 has; "
                f"got features in {feature.dtype} and targets in {target.dtype} for layer {layer}"
            )
        if not (feature.device == target.device == first.device):
            raise ValueError(
                f"feature_loss expects one device, {first.device} as layer 0 has; "
                f"got features on {feature.device} and targets on {target.device} for layer {layer}"
            )
        if isinstance(weight, Tensor):
            raise ValueError(f"feature_loss expects weights that are Python numbers; got a tensor for layer {layer}")


def cost(shapes: Sequence[Sequence[int]], dtype: torch.dtype, with_gradients: bool) -> Cost:
    """The minimum work of a call, for any implementation.

    Args:
        shapes: of the features, one per layer.
        dtype: of features, targets and gradients.
        with_gradients: whether gradients of the features are computed.

    Returns:
        3 flops per element (difference, square, sum), and 1 for its gradient; each feature and target read once, each
        gradient written once.
    """
    elements = sum(prod(shape) for shape in shapes)
    return Cost(flops=(3 + with_gradients) * elements, bytes=(2 + with_gradients) * elements * dtype.itemsize)
