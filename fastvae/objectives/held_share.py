"""Holds the critic's gradient to a given share of the feature loss's (`critic="held"`).

Between the critic and the loss network's first map phi1, every backward pass multiplies the adversarial gradient
g = dL_GAN/dphi1(x'), taken with labels of s_0, by

    f = min(s / s_0, g_max / |g|)                                       s: the label scale, s_0 its first value

and every measurement, of r = |dL_GAN/dx'| / |d(beta L_rec)/dx'| at the generated images x' with the label scale f s_0,
moves both numbers:

    s     <- clamp(s clamp(sqrt(share f s_0 / (r s)), 1/2, 2), s_0 / 1000, 10 s_0)
    g_max <- share |d(beta L_rec)/dx'| |dL_GAN/dphi1| / |dL_GAN/dx'|

s follows slowly: the root goes half of the way in the logarithm, since one batch measures r to some ten percent and the
critic answers a change. That is too slow for a critic that recovers within ten steps after the generator fooled it for
hundreds, by when s has risen to make up for its weakness. g_max, the norm of f g at which the measured batch would have
had an r equal to the share, bounds the gradient of every step in between, and only ever weakens it.

A measurement that is not a number changes nothing; an r of zero doubles s, an infinite one halves it.

Source: Hou et al., section 3.4, where labels of 1 are too weak, 10 are right and 100 dominate. The authors tried
labels until the critic's gradient had the right size beside the feature loss's; here that size is given.
"""

import torch
from torch import Tensor

_LARGEST_CHANGE = 2.0
_SMALLEST, _LARGEST = 1 / 1000, 10.0  # of s_0
# Above every gradient's norm, and still finite as a sum over ranks.
_NO_LIMIT = 1e30


def is_unlimited(named: tuple[str, Tensor]) -> bool:
    """Whether an item of `Objective.steered` is a limit that no measurement has set yet; waits for the device."""
    name, number = named
    return name.endswith("gan_limit") and number.item() >= _NO_LIMIT


class HeldShare:
    """The two numbers and what they do to a gradient. They change in place, so that a captured step reads new ones.

    Attributes:
        label_scale: s, 0-D float32.
        gan_limit: g_max, 0-D float32; without effect until the first measurement.
    """

    def __init__(self, share: float, first: float):
        """share and first (s_0) are more than 0."""
        self.share, self.first = share, float(first)
        self.label_scale = torch.tensor(self.first)
        self.gan_limit = torch.tensor(_NO_LIMIT)

    def hold(self, phi1: Tensor) -> Tensor:
        """Returns phi1, in the same memory; multiplies its gradient by f."""
        return _Hold.apply(phi1, self.label_scale / self.first, self.gan_limit)

    @torch.no_grad()
    def measured(self, by_phi1: Tensor, by_gan: Tensor, by_rec: Tensor) -> dict[str, Tensor]:
        """What `steer_` needs and a log shows, 0-D each.

        Args:
            by_phi1: dL_GAN/dphi1 with labels of s_0.
            by_gan: the norm of dL_GAN/dx' with labels of s_0, 0-D.
            by_rec: the norm of d(beta L_rec)/dx', 0-D.

        Returns:
            gan_to_rec: r.
            label_scale: f s_0, which r is proportional to; at most the attribute's s.
            gan_limit: g_max by this batch; the one in force, if this batch gives none.
        """
        norm = _norm(by_phi1)
        factor = _factor(norm, self.label_scale / self.first, self.gan_limit)
        limit = self.share * by_rec * norm / by_gan
        return {
            "gan_to_rec": factor * by_gan / by_rec,
            "label_scale": factor * self.first,
            "gan_limit": torch.where(limit.isfinite() & (limit > 0), limit, self.gan_limit),
        }

    @torch.no_grad()
    def steer_(self, measured: dict[str, Tensor]) -> None:
        """Moves both numbers by what `measured` gave, or its mean over ranks; nothing waits for the device."""
        right = self.share * measured["label_scale"] / measured["gan_to_rec"]
        change = (right / self.label_scale).sqrt().nan_to_num(nan=1.0).clamp(1 / _LARGEST_CHANGE, _LARGEST_CHANGE)
        self.label_scale.mul_(change).clamp_(self.first * _SMALLEST, self.first * _LARGEST)
        self.gan_limit.copy_(measured["gan_limit"])

    def numbers(self) -> dict[str, Tensor]:
        """Both, by name."""
        return {"label_scale": self.label_scale, "gan_limit": self.gan_limit}

    def to(self, device: torch.device) -> None:
        self.label_scale, self.gan_limit = self.label_scale.to(device), self.gan_limit.to(device)


def _norm(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradient, dtype=torch.promote_types(gradient.dtype, torch.float32))


def _factor(norm: Tensor, scale: Tensor, limit: Tensor) -> Tensor:
    return torch.minimum(scale, limit / norm)


class _Hold(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, limit: Tensor) -> Tensor:
        ctx.save_for_backward(scale, limit)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return _factor(_norm(grad), *ctx.saved_tensors).to(grad.dtype) * grad, None, None
