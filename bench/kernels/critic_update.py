"""Update-and-clip against torch's own optimisers followed by a clamp.

    python -m bench kernels --op critic_update

The peers are torch's fastest forms: fused Adam (RMSprop has no fused form: foreach), with `_foreach_clamp_*`, and the
foreach form compiled together with the clamp.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop

from bench.kernels.cases import UpdateCase
from bench.kernels.comparison import OURS, Measurement
from fastvae.kernels.critic_update import adam_clip_ref, cost, rmsprop_clip_ref

_BETAS, _EPS, _ALPHA, _LR = (0.5, 0.999), 1e-8, 0.99, 5e-4


def measurements(cases: tuple[UpdateCase, ...], device: str) -> Iterator[Measurement]:
    """One step of every case, in float32 as parameters always are."""
    for case in cases:
        yield _measurement(case, device)


def _torchs_own(case: UpdateCase, parameters: list[nn.Parameter], device: str, *, fused: bool) -> torch.optim.Optimizer:
    # On the device: without, torch's counters could not be captured.
    capturable = {"capturable": device == "cuda"}
    if case.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, _LR, _ALPHA, _EPS, foreach=True, **capturable)
    return torch.optim.Adam(parameters, _LR, _BETAS, _EPS, fused=fused, foreach=not fused, **capturable)


def _step_and_clamp(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], clip: float | None) -> None:
    optimizer.step()
    if clip is not None:
        with torch.no_grad():
            torch._foreach_clamp_min_(parameters, -clip)
            torch._foreach_clamp_max_(parameters, clip)


def _measurement(case: UpdateCase, device: str) -> Measurement:
    initial = case.parameters(device)

    def copies() -> list[nn.Parameter]:
        made = [nn.Parameter(p.detach().clone()) for p in initial]
        for p, source in zip(made, initial, strict=True):
            p.grad = source.grad.clone()
        return made

    def contender(build: Callable, step: Callable):
        parameters = copies()
        optimizer = build(parameters)

        def call():
            step(optimizer, parameters, case.clip)
            return parameters

        return call

    fused = case.optimizer == "adam"
    name = "torch fused, clamp" if fused else "torch foreach, clamp"
    contenders = {
        name: contender(partial(_torchs_own, case, device=device, fused=fused), _step_and_clamp),
        "torch compiled with clamp": _compiled(case, copies(), device),
        OURS: contender(case.build, lambda optimizer, *_: optimizer.step()),
    }

    def expected():
        plain = contender(partial(_torchs_own, case, device=device, fused=fused), _step_and_clamp)()
        return plain, [_exact(case, p) for p in initial]

    numel = sum(p.numel() for p in initial)
    least = cost(numel, optimizer=case.optimizer)
    return Measurement(
        "critic_update", case.name, "one step", torch.float32, contenders, expected, least.flops, least.bytes
    )


def _compiled(case: UpdateCase, parameters: list[nn.Parameter], device: str) -> Callable[[], list[nn.Parameter]]:
    """torch's functional optimiser and the clamp in one graph; through the class there would be two."""
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    steps = [torch.zeros((), device=device) for _ in parameters]
    # Of the class's settings those that are not the default.
    common = {"foreach": True, "capturable": True, "weight_decay": 0.0, "eps": _EPS, "lr": _LR}

    @torch.compile(fullgraph=True, dynamic=False)
    def step(params, grads, first, second, steps):
        if case.optimizer == "adam":
            b1, b2 = _BETAS
            adam(
                params, grads, first, second, [], steps,
                amsgrad=False, beta1=b1, beta2=b2, maximize=False, **common,
            )  # fmt: skip
        else:
            rmsprop(params, grads, second, [], [], steps, alpha=_ALPHA, momentum=0.0, centered=False, **common)
        if case.clip is not None:
            torch._foreach_clamp_min_(params, -case.clip)
            torch._foreach_clamp_max_(params, case.clip)

    def call():
        with torch.no_grad():
            step(parameters, [p.grad for p in parameters], first, second, steps)
        return parameters

    return call


def _exact(case: UpdateCase, p: nn.Parameter) -> torch.Tensor:
    """The parameter after its first step, in float64."""
    wide, grad = p.detach().double(), p.grad.double()
    zero = torch.zeros_like(wide)
    if case.optimizer == "adam":
        return adam_clip_ref(wide, grad, zero, zero, 0, lr=_LR, betas=_BETAS, eps=_EPS, clip=case.clip)[0]
    return rmsprop_clip_ref(wide, grad, zero, lr=_LR, alpha=_ALPHA, eps=_EPS, clip=case.clip)[0]
