"""Optimiser update followed by clipping: what Algorithm 1 does to the critic after every batch.

    Adam:     m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
              w = w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)        (Kingma and Ba, Algorithm 1)
    RMSprop:  v = a v + (1 - a) g^2,  w = w - lr g / (sqrt(v) + eps)               (Arjovsky et al., Algorithm 1)
    clip:     w = min(max(w, -c), c)                                              (Hou et al., Algorithm 1)

All tensors of the set are updated in place. `lr` is a number or a 0-D tensor on the parameters' device, so that a
schedule can change it without recompiling or recapturing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def adam_clip_ref(param, grad, exp_avg, exp_avg_sq, step, *, lr, betas, eps, clip) -> Tensor:
    """The specification of `adam_clip_` for one tensor: returns the new parameter and changes nothing."""
    b1, b2 = betas
    t = step + 1
    m = b1 * exp_avg + (1 - b1) * grad
    v = b2 * exp_avg_sq + (1 - b2) * grad**2
    new = param - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
    return new if clip is None else new.clamp(-clip, clip)


def rmsprop_clip_ref(param, grad, square_avg, *, lr, alpha, eps, clip) -> Tensor:
    """The specification of `rmsprop_clip_` for one tensor: returns the new parameter and changes nothing."""
    v = alpha * square_avg + (1 - alpha) * grad**2
    new = param - lr * grad / (v.sqrt() + eps)
    return new if clip is None else new.clamp(-clip, clip)


def adam_clip_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
    clip: float | None = None,
) -> None:
    """One Adam step on every tensor, in place, then w = clamp(w, -clip, clip).

    Args:
        params, grads, exp_avgs, exp_avg_sqs: tensors of equal shapes, float32 or float64.
        steps: 0-D float32 tensors, the updates done so far; each grows by one.
        lr: learning rate, > 0; a number or a 0-D tensor.
        betas: decay rates in [0, 1).
        eps: added to the denominator, > 0.
        clip: largest absolute value of a parameter afterwards, > 0; None for no clipping.

    Raises:
        ValueError: a parameter and its state differ in shape or in memory layout.
    """
    if not params:
        return
    for p, m, v in zip(params, exp_avgs, exp_avg_sqs, strict=True):
        # The fused update walks them side by side in memory.
        if not p.stride() == m.stride() == v.stride() or not p.shape == m.shape == v.shape:
            raise ValueError(
                f"adam_clip_ expects state laid out as its parameter, {list(p.shape)} with strides {p.stride()}; "
                f"got {list(m.shape)} with {m.stride()} and {list(v.shape)} with {v.stride()}"
            )
    torch._foreach_add_(list(steps), 1)
    torch._fused_adam_(
        list(params),
        [g if g.stride() == p.stride() else torch.empty_like(p).copy_(g) for p, g in zip(params, grads, strict=True)],
        list(exp_avgs),
        list(exp_avg_sqs),
        [],
        list(steps),
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=0.0,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )
    _clip_(params, clip)


def rmsprop_clip_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    square_avgs: Sequence[Tensor],
    *,
    lr: float | Tensor,
    alpha: float,
    eps: float,
    clip: float | None = None,
) -> None:
    """One RMSprop step (no momentum, not centred) on every tensor, in place, then w = clamp(w, -clip, clip).

    Args:
        params, grads, square_avgs: tensors of equal shapes, float32 or float64.
        lr: learning rate, > 0; a number or a 0-D tensor.
        alpha: decay rate of the squared gradient's average, in [0, 1).
        eps: added to the denominator, > 0.
        clip: largest absolute value of a parameter afterwards, > 0; None for no clipping.
    """
    if not params:
        return
    params, square_avgs = list(params), list(square_avgs)
    torch._foreach_mul_(square_avgs, alpha)
    torch._foreach_addcmul_(square_avgs, list(grads), list(grads), value=1 - alpha)
    change = torch._foreach_sqrt(square_avgs)
    torch._foreach_add_(change, eps)
    change = torch._foreach_div(list(grads), change)
    torch._foreach_mul_(change, lr)
    torch._foreach_sub_(params, change)
    _clip_(params, clip)


def _clip_(params: Sequence[Tensor], clip: float | None) -> None:
    if clip is not None:
        torch._foreach_clamp_min_(list(params), -clip)
        torch._foreach_clamp_max_(list(params), clip)
