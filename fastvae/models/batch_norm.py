"""Batch normalisation as the networks use it: torch's, also for several batches in one tensor."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of a tensor [batches, B, C, H, W].
_STATISTICS_OVER = (1, 3, 4)


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that can treat a tensor as several batches, and does not count batches.

    With a fixed momentum nothing reads `num_batches_tracked`, and a step of the VAE-WGAN would update 33 of them, one
    kernel launch each. The buffer stays in the state dict, so that torch's own module can load it.
    """

    def forward(self, x: Tensor, batches: int = 1) -> Tensor:
        """Normalises x [B, C, H, W].

        Args:
            x: one or more batches of equal size, concatenated.
            batches: how many. In training each is normalised by its own mean and variance, and the running statistics
                are updated by one after the other, as if the module were called on each.
        """
        if batches == 1 or not self.training:
            return self._normalise(x)
        if x.shape[0] * x.shape[2] * x.shape[3] == batches:
            raise ValueError(f"BatchNorm2d expects more than one value per channel in training; got {list(x.shape)}")
        if not torch.compiler.is_compiling():
            return torch.cat([self._normalise(batch) for batch in x.chunk(batches)])
        x = x.unflatten(0, (batches, -1))
        with torch.no_grad():  # `_NormaliseBatches` differentiates through them
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            variance, mean = torch.var_mean(wide, _STATISTICS_OVER, correction=0, keepdim=True)
            self._update_running(mean.flatten(1), variance.flatten(1), x.numel() // mean.numel())
        return _NormaliseBatches.apply(x, mean, variance, self.weight, self.bias, self.eps).flatten(0, 1)

    def _normalise(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )

    def _update_running(self, means: Tensor, variances: Tensor, count: int) -> None:
        # running = (1 - m) running + m new, for one batch after the other; means and variances in one launch.
        running, kept = [self.running_mean, self.running_var], 1.0
        change = [0.0, 0.0]
        for mean, variance in zip(means.flip(0), variances.flip(0), strict=True):
            new = (mean, variance * (count / (count - 1)))
            change = [c + self.momentum * kept * n for c, n in zip(change, new, strict=True)]
            kept *= 1 - self.momentum
        torch._foreach_mul_(running, kept)
        torch._foreach_add_(running, change)


class _NormaliseBatches(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, for x [batches, B, C, H, W] and each batch's statistics.

    With N numbers in each mean, g the gradient of y and x' = (x - mean) / sqrt(variance + eps),

        dx = weight / sqrt(variance + eps) * (g - sum g / N - x' sum(g x') / N)

    Source: Ioffe and Szegedy 2015, section 3. With autograd's own backward the compiled pass would read the maps once
    more, for the sum of x - mean, which is zero.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float):
        inverse = torch.rsqrt(variance + eps)
        y = (x.to(mean.dtype) - mean) * (inverse * weight[:, None, None]) + bias[:, None, None]
        ctx.save_for_backward(x, mean, inverse, weight)
        # torch 2.11 compiles a cast that changes nothing to one whose gradient is zero.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, mean, inverse, weight = ctx.saved_tensors  # once: torch.utils.checkpoint recomputes them at each access
        dtype = x.dtype
        grad, x = (t.to(mean.dtype) for t in (grad, x))
        normalised = (x - mean) * inverse
        count = x.numel() // mean.numel()
        total = grad.sum(_STATISTICS_OVER, keepdim=True)
        along = (grad * normalised).sum(_STATISTICS_OVER, keepdim=True)
        dx = weight[:, None, None] * inverse * (grad - total / count - normalised * (along / count))
        first, *others = [[along[i].flatten(), total[i].flatten()] for i in range(len(x))]
        for other in others:
            first = torch._foreach_add(first, other)  # one launch
        return dx.to(dtype), None, None, *first, None
