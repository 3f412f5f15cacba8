"""Transposed convolution for the GANs' generator, computed as a matrix product on a 1x1 map."""

import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.kernels.dispatch import map_format


class TransposedConv2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` for square kernels, without output padding, dilation or groups.

    For a 1x1 map each output pixel is one product of the input with the kernel's weight at that position. As a matrix
    product, the result is in channels_last whenever the weight is, as torch predicts. For the transposed convolution
    itself torch's compiler predicts other strides than cuDNN returns, since the strides of a 1x1 map are arbitrary, and
    compiled training fails in the backward pass.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool = True):
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, (H - 1) stride - 2 padding + kernel, the same of W]."""
        if x.shape[2:] != (1, 1):
            return super().forward(x)
        kernel, padding = self.kernel_size[0], self.padding[0]
        used = slice(padding, kernel - padding)  # the rest of the kernel is outside the output
        weight = self.weight[:, :, used, used].permute(2, 3, 1, 0)  # [H', W', O, I], a view of a channels_last weight
        bias = None if self.bias is None else self.bias.repeat(weight.shape[0] * weight.shape[1])
        y = F.linear(x.flatten(1), weight.flatten(0, 2), bias)
        return y.unflatten(1, weight.shape[:3]).permute(0, 3, 1, 2).contiguous(memory_format=map_format(y.device))
