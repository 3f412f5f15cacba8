"""Batch normalisation as the networks use it: torch's, for one batch or for several in one tensor."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of a tensor [parts, B, C, H, W].
_STATISTICS_OVER = (1, 3, 4)


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, which can also treat a tensor as several batches, and counts none.

    With a fixed momentum nothing reads the count, and a step of the VAE-WGAN has 33 of them, each a launch for a single
    number. The buffer stays in the state dict, which torch's own module can therefore load.
    """

    def forward(self, x: Tensor, parts: int = 1) -> Tensor:
        """Normalises x [B, C, H, W], in training by the statistics of each of its parts.

        Args:
            x: `parts` batches of equal size, one after the other.
            parts: how many; every one has a mean and a variance of its own, and the running ones take them in turn,
                as if the module were called on each.
        """
        if parts == 1 or not self.training:
            return self._normalise(x)
        if x.shape[0] * x.shape[2] * x.shape[3] == parts:
            raise ValueError(f"BatchNorm2d expects more than one value per channel in training; got {list(x.shape)}")
        if not torch.compiler.is_compiling():
            return torch.cat([self._normalise(part) for part in x.chunk(parts)])
        x = x.unflatten(0, (parts, -1))
        with torch.no_grad():  # `_NormaliseParts` knows how they depend on x
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            variance, mean = torch.var_mean(wide, _STATISTICS_OVER, correction=0, keepdim=True)
            self._update_running(mean.flatten(1), variance.flatten(1), x.numel() // mean.numel())
        return _NormaliseParts.apply(x, mean, variance, self.weight, self.bias, self.eps).flatten(0, 1)

    def _normalise(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )

    def _update_running(self, means: Tensor, variances: Tensor, count: int) -> None:
        # running = (1 - m) running + m found, for one part after the other; both in one launch.
        running, kept = [self.running_mean, self.running_var], 1.0
        change = [0.0, 0.0]
        for mean, variance in zip(means.flip(0), variances.flip(0), strict=True):
            found = (mean, variance * (count / (count - 1)))
            change = [c + self.momentum * kept * f for c, f in zip(change, found, strict=True)]
            kept *= 1 - self.momentum
        torch._foreach_mul_(running, kept)
        torch._foreach_add_(running, change)


class _NormaliseParts(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias for x [parts, B, C, H, W] and the statistics of its parts.

    With N numbers in each mean, g the gradient of y and x' = (x - mean) / sqrt(variance + eps),

        dx = weight / sqrt(variance + eps) * (g - sum g / N - x' sum(g x') / N)

    Source: Ioffe and Szegedy 2015, section 3. Left to autograd, the compiled backward pass would read the maps once
    more, for a sum of x - mean, which is zero.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float):
        inverse = torch.rsqrt(variance + eps)
        y = (x.to(mean.dtype) - mean) * (inverse * weight[:, None, None]) + bias[:, None, None]
        ctx.save_for_backward(x, mean, inverse, weight)
        # Compiled by torch 2.11, what comes out of a cast that changes nothing has a gradient of zero.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, mean, inverse, weight = ctx.saved_tensors  # once: torch.utils.checkpoint computes them anew at that
        dtype = x.dtype
        grad, x = (t.to(mean.dtype) for t in (grad, x))
        normalised = (x - mean) * inverse
        count = x.numel() // mean.numel()
        total = grad.sum(_STATISTICS_OVER, keepdim=True)
        along = (grad * normalised).sum(_STATISTICS_OVER, keepdim=True)
        dx = weight[:, None, None] * inverse * (grad - total / count - normalised * (along / count))
        first, *others = [[along[part].flatten(), total[part].flatten()] for part in range(len(x))]
        for other in others:
            first = torch._foreach_add(first, other)  # both in one launch
        return dx.to(dtype), None, None, *first, None
