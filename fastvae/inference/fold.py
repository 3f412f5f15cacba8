"""Folding: a trained VAE reduced to convolutions, on which all backends and exported files are based.

In eval mode a batch normalisation multiplies and shifts each channel, which the convolution before it can absorb: its
filters are multiplied by g = weight / sqrt(running_var + eps), and its bias becomes bias - running_mean g. The
upsampling convolutions become transposed convolutions of the low-resolution map (the identity is derived in
kernels/replicate_conv.py). All of this is computed in float64 and rounded once.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.errors import FastvaeError
from fastvae.kernels import pack_weights, replicate_conv2d
from fastvae.kernels.dispatch import map_format
from fastvae.kernels.replicate_conv_aten import upsampling_kernel
from fastvae.models import VAE
from fastvae.models.blocks import NEGATIVE_SLOPE


class FoldedConv2d(nn.Module):
    """A convolution with the following batch normalisation folded in; weight and bias are buffers.

    `packed` is the weight as Triton's kernels read it, or None: then each call packs it. `pack` fills it, and whatever
    moves, casts or loads the weight empties it.

    Args:
        conv: an `nn.Conv2d` or a `ReplicationConv2d`, with or without upsampling.
        norm: the batch normalisation that follows, in eval mode, or None.
        activated: whether a LeakyReLU follows, after the residual if there is one.
        kernels: compute replication-padded convolutions with `fastvae.kernels`, which is faster on a GPU, or with
            torch's operations, which exported files need.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None, *, activated: bool, kernels: bool):
        super().__init__()
        weight, bias = folded(conv, norm)
        self.upsample, self.replicate = getattr(conv, "upsample", 1), conv.padding_mode == "replicate"
        self.stride, self.padding = conv.stride, conv.padding
        self.activated, self.kernels = activated, kernels and self.replicate
        if self.upsample == 2 and not self.kernels:
            weight = upsampling_kernel(weight)
        self.register_buffer("weight", weight.to(conv.weight.dtype).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.to(conv.weight.dtype))
        self.register_buffer("packed", None, persistent=False)

    def _apply(self, *args, **kwargs):
        self.packed = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        self.packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[B, I, H, W] -> [B, O, H', W'], to which the residual is added."""
        if self.kernels:
            options = {"upsample": self.upsample, "negative_slope": NEGATIVE_SLOPE if self.activated else None}
            return replicate_conv2d(x, self.weight, self.bias, residual=residual, packed=self.packed, **options)
        y = self._convolved(x) if residual is None else self._convolved(x) + residual
        return F.leaky_relu(y, NEGATIVE_SLOPE) if self.activated else y

    def _convolved(self, x: Tensor) -> Tensor:
        if not self.replicate:
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        if self.upsample == 2:
            return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=3)
        return F.conv2d(x, self.weight, self.bias)


def pack(module: nn.Module) -> None:
    """Packs the weights of a module's folded convolutions, where Triton runs them, in one launch.

    Args:
        module: on its device and in its dtype.
    """
    convs = [conv for conv in module.modules() if isinstance(conv, FoldedConv2d) and conv.kernels]
    weights, upsamples = [conv.weight for conv in convs], [conv.upsample for conv in convs]
    if convs:
        for conv, packed in zip(convs, pack_weights(weights, upsamples, weights[0].dtype), strict=True):
            conv.packed = packed


class _FoldedStage(nn.Module):
    """One stage of encoder or decoder: a convolution and a residual block."""

    def __init__(self, stage: nn.Sequential, *, kernels: bool):
        super().__init__()
        conv, norm, _, block = stage
        self.conv = FoldedConv2d(conv, norm, activated=True, kernels=kernels)
        self.conv1 = FoldedConv2d(block.conv1, block.bn1, activated=True, kernels=kernels)
        self.conv2 = FoldedConv2d(block.conv2, block.bn2, activated=True, kernels=kernels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.conv2(self.conv1(x), residual=x)


class FoldedEncoder(nn.Module):
    """`VAE.encode`, folded: images [B, 3, H, W] in [-1, 1] -> mean and log-variance [B, latent]."""

    def __init__(self, vae: VAE, *, kernels: bool = False):
        super().__init__()
        self.stages = nn.Sequential(*(_FoldedStage(stage, kernels=kernels) for stage in vae.encoder.stages))
        self.mean, self.log_variance = _copied(vae.encoder.mean), _copied(vae.encoder.log_variance)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = torch.flatten(self.stages(images), 1)
        return self.mean(features), self.log_variance(features)


class FoldedDecoder(nn.Module):
    """`VAE.decode`, folded: z [B, latent] -> images [B, 3, H, W] in [-1, 1]."""

    def __init__(self, vae: VAE, *, kernels: bool = False):
        super().__init__()
        self.linear, self.map_shape = _copied(vae.decoder.linear), vae.decoder.map_shape
        self.stages = nn.Sequential(*(_FoldedStage(stage, kernels=kernels) for stage in vae.decoder.stages))
        self.to_image = FoldedConv2d(vae.decoder.to_image, activated=False, kernels=kernels)

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        x = torch.relu(self.linear(z)).unflatten(1, self.map_shape)
        x = x.contiguous(memory_format=map_format(x.device))
        return torch.tanh(self.to_image(self.stages(x)))


class FoldedReconstruction(nn.Module):
    """`VAE.reconstruct`, folded: images [B, 3, H, W] -> the decoded mean of q(z|x), without the log-variance."""

    def __init__(self, encoder: FoldedEncoder, decoder: FoldedDecoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        features = torch.flatten(self.encoder.stages(images), 1)
        return self.decoder(self.encoder.mean(features))


def require_finite(vae: VAE, dtype: torch.dtype) -> None:
    """Checks that all weights are finite, before and after folding.

    Raises:
        FastvaeError: a weight or statistic is NaN or infinite, or becomes so when folded in `dtype`; the message names
            it.
    """
    for name, value in vae.state_dict().items():
        if not math.isfinite(_largest(value)):
            raise FastvaeError(
                f"the weights are unusable: {name} holds NaN or infinite values. Load a checkpoint from before the "
                "training diverged"
            )
    # Folding takes twice as long as building the engine, and is done here only if something might overflow.
    if all(bound < torch.finfo(dtype).max for bound in _bounds(vae)):
        return
    for name, value in FoldedReconstruction(FoldedEncoder(vae), FoldedDecoder(vae)).state_dict().items():
        if not bool(torch.isfinite(value.to(dtype)).all()):
            raise FastvaeError(
                f"the weights cannot be folded in {str(dtype).removeprefix('torch.')}: {name} becomes NaN or infinite, "
                f"because of a negative running variance or values above {torch.finfo(dtype).max:.3g}"
            )


def _bounds(vae: VAE) -> Iterator[float]:
    """For each layer a bound on its folded weights and biases, without folding them; NaN if they hold NaN."""
    alone = (vae.encoder.mean, vae.encoder.log_variance, vae.decoder.linear, vae.decoder.to_image)
    pairs: list[tuple[nn.Module, nn.BatchNorm2d | None]] = [(layer, None) for layer in alone]
    for conv, norm, _, block in (*vae.encoder.stages, *vae.decoder.stages):
        pairs += [(conv, norm), (block.conv1, block.bn1), (block.conv2, block.bn2)]
    for layer, norm in pairs:
        largest = _largest(layer.weight) + (0.0 if layer.bias is None else _largest(layer.bias))
        if norm is not None:
            gain = _largest(norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps))
            largest = (largest + _largest(norm.running_mean)) * gain + _largest(norm.bias)
        # An upsampling filter adds up to four taps; twice as much covers all rounding.
        yield 8 * largest


def _largest(values: Tensor) -> float:
    """The largest absolute value; NaN if there is one."""
    low, high = values.detach().aminmax()
    return max(abs(low.item()), abs(high.item()))


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Filters [O, I, kh, kw] and bias [O] of the convolution with the normalisation folded in, float64."""
    weight = conv.weight.detach().double().resolve_neg()
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double().resolve_neg()
    if norm is None:
        return weight.clone(), bias.clone()
    gain = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.detach().double() - norm.running_mean.double() * gain
    return weight * gain[:, None, None, None], bias * gain + shift


def _copied(linear: nn.Linear) -> nn.Linear:
    copy = nn.Linear(linear.in_features, linear.out_features, device="meta")
    copy.load_state_dict({k: v.detach().resolve_neg().clone() for k, v in linear.state_dict().items()}, assign=True)
    return copy.requires_grad_(False)
