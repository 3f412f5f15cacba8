"""`torch.nn.Conv2d(padding_mode="replicate")`, 3x3, as one operation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.kernels import replicate_conv2d

# torch.fx cannot trace through the argument checks, so it must treat the call as one operation.
torch.fx.wrap("_convolve")

_TAKES = {
    "kernel_size": [(3, 3)],
    "stride": [(1, 1)],
    "padding": [(1, 1), "same"],
    "dilation": [(1, 1)],
    "groups": [1],
    "padding_mode": ["replicate"],
}
TAKES = (
    'ReplicationConv2d takes kernel_size=3, stride=1, padding=1 or "same", dilation=1, groups=1 '
    'and padding_mode="replicate"'
)


def unsupported(conv: nn.Conv2d) -> dict[str, Any]:
    """The settings of a convolution that ReplicationConv2d does not support, by name; empty if it supports all."""
    return {name: getattr(conv, name) for name, values in _TAKES.items() if getattr(conv, name) not in values}


def as_arguments(settings: dict[str, Any]) -> str:
    """{"stride": (2, 2)} -> "stride=(2, 2)"."""
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


class ReplicationConv2d(nn.Conv2d):
    """3x3 convolution, stride 1, replication padding 1, optionally after nearest-neighbour x2 upsampling.

        y = conv3x3(replication_pad(nearest_upsample(x)))

    A drop-in for `torch.nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate")`: same arguments
    in the same order, same initial values for the same seed, same `state_dict` keys. Kernel size, padding and padding
    mode may be omitted, since there is only one choice.

    Exported (torch.export, ONNX, torch.jit) and under torch.func's transforms it consists of torch's own operations; a
    compiled transform, `torch.compile(torch.func.grad(...))`, raises. Otherwise it supports first-order reverse-mode
    differentiation: a gradient penalty, which differentiates twice, and torch.autograd.forward_ad need torch's class.

    `packed` is a buffer outside the state dict, None unless a caller with many of these modules packs all their weights
    in one launch (`fastvae.kernels.pack_weights`), for one call, as by `torch.func.functional_call`. Calls of
    `_conv_forward` do not use it.

    Args:
        in_channels, out_channels: channel counts, > 0.
        kernel_size: 3 or (3, 3).
        stride: 1 or (1, 1).
        padding: 1, (1, 1) or "same".
        dilation: 1 or (1, 1).
        groups: 1.
        bias: whether there is a bias.
        padding_mode: "replicate".
        device, dtype: of the parameters; a floating-point dtype.
        upsample: 1, or 2 to upsample x before the padding.

    Raises:
        ValueError: an argument is not one of those above.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 1,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "replicate",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        upsample: int = 1,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        # Checked afterwards, when torch has expanded integers to pairs and rejected what it does not support itself.
        if wrong := unsupported(self):
            raise ValueError(f"{TAKES}; got {as_arguments(wrong)}: use torch.nn.Conv2d for that")
        if upsample not in (1, 2):
            raise ValueError(f"ReplicationConv2d takes upsample=1 or upsample=2; got {upsample!r}")
        self.upsample = int(upsample)
        self.register_buffer("packed", None, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, upsample * H, upsample * W]; without B if upsample is 1."""
        if self.packed is None:
            return self._conv_forward(input, self.weight, self.bias)
        else:  # must be explicit, as below
            return _convolve(input, self.weight, self.bias, self.upsample, self.packed)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`forward` with another weight: code that computes its own (low-rank adapters, equalised learning rates) calls
        this method.
        """
        if torch.jit.is_scripting():
            return _scripted(input, weight, bias, self.upsample)
        else:  # must be explicit, or torch.jit.script would compile this branch too
            return _convolve(input, weight, bias, self.upsample)

    def extra_repr(self) -> str:
        upsample = f", upsample={self.upsample}" if self.upsample != 1 else ""
        bias = ", bias=False" if self.bias is None else ""
        return f"{self.in_channels}, {self.out_channels}{upsample}{bias}"


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, upsample: int, packed: Tensor | None = None) -> Tensor:
    # For torch's convolution [C, H, W] is one image, but for its upsampling a batch of 1D signals.
    if x.dim() == 3 and upsample == 1:
        return replicate_conv2d(x.unsqueeze(0), weight, bias, packed=packed).squeeze(0)
    return replicate_conv2d(x, weight, bias, upsample=upsample, packed=packed)


def _scripted(x: Tensor, weight: Tensor, bias: Tensor | None, upsample: int) -> Tensor:
    """The same, in operations that torch.jit.script can compile."""
    if upsample == 2:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.conv2d(F.pad(x, [1, 1, 1, 1], mode="replicate"), weight, bias)
