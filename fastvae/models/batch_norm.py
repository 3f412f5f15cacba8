"""Batch normalisation as the networks use it: torch's, also for several batches in one tensor."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.kernels import batch_norm, provider


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that can treat a tensor as several batches, and does not count batches.

    With a fixed momentum nothing reads `num_batches_tracked`, and a step of the VAE-WGAN would update 33 of them, one
    kernel launch each. The buffer stays in the state dict, so that torch's own module can load it.
    """

    def forward(
        self, x: Tensor, batches: int = 1, activation: nn.Module | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """activation(norm(x) + residual): one op in compiled training on a GPU.

        Args:
            x: [B, C, H, W], one or more batches of equal size, concatenated.
            batches: how many. In training each is normalised by its own mean and variance, and the running statistics
                are updated by one after the other, as if the module were called on each.
            activation: module that is applied to the result; None for none.
            residual: of x's shape, added before the activation; None for none.
        """
        if self.momentum is None:  # as torch.optim.swa_utils.update_bn sets it
            y = torch.cat([nn.BatchNorm2d.forward(self, batch) for batch in x.chunk(batches)])
            return _after(y, activation, residual)
        if batches == 1 or not self.training:
            if not (self.training and torch.compiler.is_compiling() and provider("batch_norm", x) == "triton"):
                return _after(self._normalise(x), activation, residual)
        elif x.shape[0] * x.shape[2] * x.shape[3] == batches:
            raise ValueError(f"BatchNorm2d expects more than one value per channel in training; got {list(x.shape)}")
        elif not torch.compiler.is_compiling():
            return _after(torch.cat([self._normalise(batch) for batch in x.chunk(batches)]), activation, residual)
        fused = isinstance(activation, nn.LeakyReLU | nn.ReLU)
        y = batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            batches=batches,
            momentum=self.momentum,
            eps=self.eps,
            residual=residual,
            negative_slope=getattr(activation, "negative_slope", 0.0) if fused else None,
        )
        return y if fused else _after(y, activation, None)

    def _normalise(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )


def _after(y: Tensor, activation: nn.Module | None, residual: Tensor | None) -> Tensor:
    y = y if residual is None else y + residual
    return y if activation is None else activation(y)
