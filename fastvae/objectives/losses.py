"""Loss terms in closed form, and helpers that direct gradients where two networks share a forward pass."""

import torch
from torch import Tensor, nn
from torch.func import functional_call


def reparameterise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """z = mean + exp(log_variance / 2) * noise, a sample of q(z|x) if the noise is standard normal; all [B, latent].

    Source: Kingma and Welling 2014, section 2.4.
    """
    return mean + torch.exp(0.5 * log_variance) * noise


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats, summed over latent dimensions, averaged over the batch.

        KL = 1/2 sum_j (mean_j^2 + exp(log_variance_j) - log_variance_j - 1)

    Source: Kingma and Welling 2014, appendix B.

    Args:
        mean, log_variance: [B, latent].

    Returns:
        A scalar >= 0, float32 (float64 for float64 input).
    """
    accumulate = torch.promote_types(mean.dtype, torch.float32)
    mean, log_variance = mean.to(accumulate), log_variance.to(accumulate)
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean()


def gaussian_reconstruction(images: Tensor, reconstructions: Tensor, sigma: float) -> Tensor:
    """-log p(x|z) without its constant, p = N(reconstruction, sigma^2 I): summed over pixels, averaged over the batch.

    Source: Kingma and Welling 2014, appendix C.2, with a fixed variance.

    Args:
        images, reconstructions: [B, C, H, W] in [-1, 1].
        sigma: standard deviation of a pixel's value on that scale, > 0.

    Returns:
        A scalar >= 0, float32 (float64 for float64 input).
    """
    accumulate = torch.promote_types(images.dtype, torch.float32)
    difference = images.to(accumulate) - reconstructions.to(accumulate)
    return difference.square().flatten(1).sum(1).mean() / (2 * sigma**2)


def with_fixed_parameters(network: nn.Module, *inputs, **options) -> Tensor:
    """network(*inputs, **options), whose gradient reaches the inputs but not the network's parameters."""
    return functional_call(network, {name: p.detach() for name, p in network.named_parameters()}, inputs, options)


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * grad, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Returns x, in the same memory; multiplies its gradient by the factor."""
    return _ScaleGradient.apply(x, factor)
