"""Optimiser update followed by clipping, as Algorithm 1 does for the critic after each batch.

    Adam:     m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
              w = w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)        (Kingma and Ba, Algorithm 1)
    RMSprop:  v = a v + (1 - a) g^2,  w = w - lr g / (sqrt(v) + eps)               (Arjovsky et al., Algorithm 1)
    clip:     w = min(max(w, -c), c)                                              (Hou et al., Algorithm 1)

All tensors are updated in place, on a GPU by one kernel that reads their addresses from a table (see
`critic_update_triton`). A flat buffer instead of the table would need flat gradients, which autograd can only produce
by adding to zeroed views (16 more bytes moved per parameter besides Adam's 28, and a launch per tensor), and would
replace the memory of the caller's parameters.

`lr` is a number or a 0-D tensor on the parameters' device, which a captured CUDA graph reads at each replay. So is
`gate`: if it is zero, nothing changes, neither parameters nor averages nor counters, to the last bit. The host does not
learn which, and so neither waits for the device nor takes another way.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .cost import Cost
from .dispatch import provider
from .layout import is_dense


def adam_clip_ref(
    param, grad, exp_avg, exp_avg_sq, step, *, lr, betas, eps, clip, gate=1
) -> tuple[Tensor, Tensor, Tensor]:
    """The specification of `adam_clip_` for one tensor: returns the new parameter, m and v; not in place."""
    if gate == 0:
        return param, exp_avg, exp_avg_sq
    b1, b2 = betas
    t = step + 1
    m = b1 * exp_avg + (1 - b1) * grad
    v = b2 * exp_avg_sq + (1 - b2) * grad**2
    new = param - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
    return new if clip is None else new.clamp(-clip, clip), m, v


def rmsprop_clip_ref(param, grad, square_avg, *, lr, alpha, eps, clip, gate=1) -> tuple[Tensor, Tensor]:
    """The specification of `rmsprop_clip_` for one tensor: returns the new parameter and v; not in place."""
    if gate == 0:
        return param, square_avg
    v = alpha * square_avg + (1 - alpha) * grad**2
    new = param - lr * grad / (v.sqrt() + eps)
    return new if clip is None else new.clamp(-clip, clip), v


def _adam_clip(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    gate: Tensor | None,
    lr: float,
    lr_tensor: Tensor | None,
    beta1: float,
    beta2: float,
    eps: float,
    clip: float | None,
) -> None:
    grads, lr_tensor = _laid_out_as(params, grads), _in_memory(lr_tensor)
    if provider("adam_clip_", params[0]) == "triton":
        from . import critic_update_triton as triton

        if tile := triton.choose_tile("adam_clip_", params):
            _count(steps, gate)
            triton.adam_clip_(
                params, grads, exp_avgs, exp_avg_sqs, steps, gate, lr, lr_tensor, (beta1, beta2), eps, clip, tile
            )
            return

    def update() -> None:
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            params,
            grads,
            exp_avgs,
            exp_avg_sqs,
            [],
            steps,
            lr=lr if lr_tensor is None else lr_tensor,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=eps,
            amsgrad=False,
            maximize=False,
        )
        _clip_(params, clip)

    _unless_zero(gate, update, [*params, *exp_avgs, *exp_avg_sqs, *steps])


def _rmsprop_clip(
    params: list[Tensor],
    grads: list[Tensor],
    square_avgs: list[Tensor],
    steps: list[Tensor],
    gate: Tensor | None,
    lr: float,
    lr_tensor: Tensor | None,
    alpha: float,
    eps: float,
    clip: float | None,
) -> None:
    grads, lr_tensor = _laid_out_as(params, grads), _in_memory(lr_tensor)
    if provider("rmsprop_clip_", params[0]) == "triton":
        from . import critic_update_triton as triton

        if tile := triton.choose_tile("rmsprop_clip_", params):
            triton.rmsprop_clip_(params, grads, square_avgs, steps, gate, lr, lr_tensor, alpha, eps, clip, tile)
            return

    def update() -> None:
        torch._foreach_add_(steps, 1)
        torch._foreach_mul_(square_avgs, alpha)
        torch._foreach_addcmul_(square_avgs, grads, grads, value=1 - alpha)
        root = torch._foreach_sqrt(square_avgs)
        torch._foreach_add_(root, eps)
        if lr_tensor is None or lr_tensor.device.type == "cpu":  # no device sync on a CPU
            torch._foreach_addcdiv_(params, grads, root, value=-(lr if lr_tensor is None else lr_tensor.item()))
        else:
            change = torch._foreach_div(grads, root)
            torch._foreach_mul_(change, lr_tensor)
            torch._foreach_sub_(params, change)
        _clip_(params, clip)

    _unless_zero(gate, update, [*params, *square_avgs, *steps])


def _count(steps: list[Tensor], gate: Tensor | None) -> None:
    """Adds 1 to each counter, or 0 if the gate is zero, in one launch and another for the gate."""
    if gate is None:
        torch._foreach_add_(steps, 1)
    else:
        one = torch.ne(gate, 0, out=torch.empty((), dtype=torch.float32, device=gate.device))
        torch._foreach_add_(steps, [one] * len(steps))  # a list: to add one tensor to all, torch asks for its value


def _unless_zero(gate: Tensor | None, update: Callable[[], None], tensors: list[Tensor]) -> None:
    """Runs `update`, which changes `tensors`; if the gate is zero, they stay as they are."""
    if gate is not None and gate.device.type != "cpu":
        _undone_if_zero(gate, update, tensors)
    elif gate is None or gate != 0:  # on a CPU the host knows it without waiting
        update()


def _undone_if_zero(gate: Tensor, update: Callable[[], None], tensors: list[Tensor]) -> None:
    """`_unless_zero` where only the device knows whether the gate is zero."""
    closed, before = gate == 0, [torch.empty_like(t) for t in tensors]
    torch._foreach_copy_(before, tensors)
    update()
    for t, old in zip(tensors, before, strict=True):
        torch.where(closed, old, t, out=t)


def _clip_(params: list[Tensor], clip: float | None) -> None:
    if clip is None:
        return
    if params[0].device.type == "cpu":
        for p in params:
            p.clamp_(-clip, clip)  # one pass over memory; the two below make two
    else:
        torch._foreach_clamp_min_(params, -clip)
        torch._foreach_clamp_max_(params, clip)


def _laid_out_as(params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
    """The gradients with their parameters' strides, since the update reads both in the order of memory."""
    return [_restrided(p, g) for p, g in zip(params, grads, strict=True)]


def _in_memory(lr: Tensor | None) -> Tensor | None:
    """lr with lazy negation resolved, since a kernel reads memory."""
    return None if lr is None else lr.resolve_neg()


def _restrided(p: Tensor, g: Tensor) -> Tensor:
    g = g.resolve_neg()
    if g.stride() == p.stride():
        return g
    # The stride of an axis of size 1 is arbitrary, and cuDNN's differs from torch's.
    if all(size == 1 or a == b for size, a, b in zip(p.shape, p.stride(), g.stride(), strict=True)):
        return g.as_strided(p.shape, p.stride())
    return torch.empty_like(p).copy_(g)


# Opaque to torch.compile, since the kernel needs the addresses of the actual tensors of this step. Inductor must not
# capture them in its own graphs: memory that outlives the call would be in the graph's pool.
_adam_clip_op = torch.library.custom_op(
    "fastvae::adam_clip_",
    _adam_clip,
    mutates_args=("params", "exp_avgs", "exp_avg_sqs", "steps"),
    tags=(torch.Tag.cudagraph_unsafe,),
)
_rmsprop_clip_op = torch.library.custom_op(
    "fastvae::rmsprop_clip_",
    _rmsprop_clip,
    mutates_args=("params", "square_avgs", "steps"),
    tags=(torch.Tag.cudagraph_unsafe,),
)


@torch.no_grad()
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
    gate: Tensor | None = None,
) -> None:
    """One Adam step on each tensor, in place, then w = clamp(w, -clip, clip). NaN stays NaN.

    Args:
        params: of any shapes, one floating-point dtype and one device, without gaps or overlaps in memory, not lazily
            negated. Triton supports float32; other dtypes run ATen.
        grads: of the same shapes, dtype and device; copied first if their memory layout differs.
        exp_avgs, exp_avg_sqs: m and v, with the shapes, dtypes and strides of their parameters.
        steps: 0-D float32 tensors on the parameters' device, the number of updates so far; each is incremented.
        lr: learning rate, >= 0; a number, or a 0-D tensor on the parameters' device.
        betas: decay rates in [0, 1).
        eps: added to the denominator, > 0.
        clip: largest absolute value of a parameter after the step, > 0; None for no clipping.
        gate: a 0-D tensor on the parameters' device, real or bool. If it is zero, nothing changes, not even a counter.
            NaN counts as open.

    Raises:
        ValueError: a tensor or a number is not as described above.
    """
    if not params:
        return
    _check("adam_clip_", params, grads, (exp_avgs, exp_avg_sqs), steps, lr, betas, eps, clip, gate)
    # Calling an op with 190 tensors takes longer than all of its work on the host, so only a compiler calls the op.
    update = _adam_clip_op if torch.compiler.is_compiling() else _adam_clip
    update(
        list(params),
        list(grads),
        list(exp_avgs),
        list(exp_avg_sqs),
        list(steps),
        gate,
        *_number_and_tensor(lr),
        *betas,
        eps,
        clip,
    )


@torch.no_grad()
def rmsprop_clip_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    square_avgs: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    lr: float | Tensor,
    alpha: float,
    eps: float,
    clip: float | None = None,
    gate: Tensor | None = None,
) -> None:
    """One RMSprop step (no momentum, not centred) on each tensor, in place, then w = clamp(w, -clip, clip).

    Args:
        params, grads, steps, lr, eps, clip, gate: as for `adam_clip_`.
        square_avgs: v, with the shapes, dtypes and strides of their parameters.
        alpha: decay rate of the squared gradient's average, in [0, 1).

    Raises:
        ValueError: a tensor or a number is not as described above.
    """
    if not params:
        return
    _check("rmsprop_clip_", params, grads, (square_avgs,), steps, lr, (alpha,), eps, clip, gate)
    update = _rmsprop_clip_op if torch.compiler.is_compiling() else _rmsprop_clip
    update(list(params), list(grads), list(square_avgs), list(steps), gate, *_number_and_tensor(lr), alpha, eps, clip)


def _number_and_tensor(lr: float | Tensor) -> tuple[float, Tensor | None]:
    """lr as the ops take it: a number, which is ignored if there is a tensor, and a tensor or None."""
    return (0.0, lr) if isinstance(lr, Tensor) else (lr, None)


def _check(
    op: str,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: tuple[Sequence[Tensor], ...],
    steps: Sequence[Tensor],
    lr: float | Tensor,
    decays: tuple[float, ...],
    eps: float,
    clip: float | None,
    gate: Tensor | None,
) -> None:
    if not isinstance(lr, Tensor) and not lr >= 0:
        raise ValueError(f"{op} expects lr >= 0; got {lr!r}")
    if not eps > 0:
        raise ValueError(f"{op} expects eps > 0; got {eps!r}")
    if not all(0 <= decay < 1 for decay in decays):
        raise ValueError(f"{op} expects decay rates in [0, 1); got {decays}")
    if clip is not None and not clip > 0:
        raise ValueError(f"{op} expects clip > 0 or None; got {clip!r}")
    device, dtype = params[0].device, params[0].dtype
    if isinstance(lr, Tensor) and (lr.dim() or lr.device != device):
        raise ValueError(
            f"{op} expects lr as a number or a 0-D tensor on {device}; got {list(lr.shape)} on {lr.device}"
        )
    if gate is not None and not isinstance(gate, Tensor):
        raise ValueError(f"{op} expects gate as a 0-D real or bool tensor on {device}, or None; got {gate!r}")
    if gate is not None and (gate.dim() or gate.device != device or gate.is_complex()):
        raise ValueError(
            f"{op} expects gate as a 0-D real or bool tensor on {device}, or None; "
            f"got {list(gate.shape)} of {gate.dtype} on {gate.device}"
        )
    for p, g, step, *state in zip(params, grads, steps, *states, strict=True):
        if p.device != device or p.dtype != dtype or not dtype.is_floating_point:
            raise ValueError(
                f"{op} expects parameters of one device and one floating-point dtype; "
                f"got {dtype} on {device} and {p.dtype} on {p.device}"
            )
        if not (p.is_contiguous() or is_dense(p)):
            raise ValueError(
                f"{op} expects parameters without gaps or overlaps in memory; "
                f"got {list(p.shape)} with strides {p.stride()}"
            )
        if g.layout != torch.strided or g.shape != p.shape or g.dtype != dtype or g.device != device:
            raise ValueError(
                f"{op} expects each gradient as its parameter, dense {list(p.shape)} of {dtype} on {device}; "
                f"got {str(g.layout).removeprefix('torch.')} {list(g.shape)} of {g.dtype} on {g.device}"
            )
        if step.dim() or step.dtype != torch.float32 or step.device != device:
            raise ValueError(
                f"{op} expects each step as a 0-D float32 tensor on {device}; "
                f"got {list(step.shape)} of {step.dtype} on {step.device}"
            )
        # A compiler cannot check this; it calls the op, for which torch resolves the negation.
        if not torch.compiler.is_compiling() and any(t.is_neg() for t in (p, *state)):
            raise ValueError(f"{op} expects parameters and state that are no lazily negated views; resolve_neg() them")
        for s in state:
            if s.shape != p.shape or s.stride() != p.stride() or s.dtype != dtype or s.device != device:
                raise ValueError(
                    f"{op} expects state laid out as its parameter, {list(p.shape)} with strides {p.stride()} of "
                    f"{dtype} on {device}; got {list(s.shape)} with {s.stride()} of {s.dtype} on {s.device}"
                )


def cost(numel: int, *, optimizer: str) -> Cost:
    """The minimum work of one call with clipping, for any implementation.

    Args:
        numel: number of parameters, float32.
        optimizer: "adam" or "rmsprop".

    Returns:
        Per parameter 15 flops and 28 bytes for Adam (w, m, v read and written, g read), 11 and 20 for RMSprop, where a
        root or a division counts as one flop.
    """
    per_parameter = {"adam": (15, 28), "rmsprop": (11, 20)}
    if optimizer not in per_parameter:
        raise ValueError(f"expected one of {', '.join(per_parameter)}; got {optimizer!r}")
    flops, moved = per_parameter[optimizer]
    return Cost(flops=flops * numel, bytes=moved * numel)
