"""Identity whose gradient changes sign: the critic ascends where the generator descends, in one backward pass.

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
    """Returns x itself; its gradient arrives negated. Any shape, any floating dtype, any device.

    torch.func's transforms do not see through it: torch asks them for another form of a gradient by hand, and raises.
    """
    return _ReverseGradient.apply(x)
