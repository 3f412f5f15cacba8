"""A linear layer whose bias the compiler adds with whatever follows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`nn.Linear`; compiled, the bias is not part of the matrix product.

    Under autocast it is then added in float32 by the next kernel, instead of being rounded by one kernel and copied to
    every row by another.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, I] -> [B, O]."""
        if self.bias is None or not torch.compiler.is_compiling():
            return super().forward(x)
        return F.linear(x, self.weight) + self.bias
