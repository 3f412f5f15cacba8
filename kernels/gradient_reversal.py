"""Identity with a negated gradient: in one backward pass the critic ascends what the generator descends.

y = x,   dL/dx = -dL/dy                        (Ganin and Lempitsky 2015, arXiv:1409.7495, section 3.1)
"""

import torch
from torch import Tensor


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return -grad


def reverse_gradient(x: Tensor) -> Tensor:
    """Returns x; negates its gradient. Any shape, any floating-point dtype, any device.

    Not supported under torch.func's transforms, which need another form of autograd.Function: torch raises.
    """
    return _ReverseGradient.apply(x)
