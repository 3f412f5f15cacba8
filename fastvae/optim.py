"""Adam and RMSprop that clip the parameters after each update, behind torch's optimiser interface.

State and `state_dict` are those of `torch.optim.Adam` and `torch.optim.RMSprop`, so that either loads the other's.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from fastvae.kernels import adam_clip_, rmsprop_clip_


class _Clipped(torch.optim.Optimizer):
    def _validate(self, lr, clip) -> None:
        if not isinstance(lr, Tensor) and not lr > 0:
            raise ValueError(f"{type(self).__name__} expects lr > 0; got {lr!r}")
        if clip is not None and not clip > 0:
            raise ValueError(f"{type(self).__name__} expects clip > 0 or None; got {clip!r}")

    # What torch's own class keeps in a group and this one does not vary: there, so that either loads the other's.
    _fixed: ClassVar[dict] = {}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("clip", self.defaults["clip"])
            for name, value in self._fixed.items():
                if group.setdefault(name, value) != value:
                    raise ValueError(
                        f"{type(self).__name__} has {name}={value} only; the state to load was made with "
                        f"{name}={group[name]}: load it into torch's own class"
                    )

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads what this class or torch's own saved, in any memory format."""
        super().load_state_dict(state_dict)
        # The fused update walks parameter and state side by side in memory, so their layouts must agree, and it
        # counts steps on the parameters' device, where torch's loader leaves them only for its own fused classes.
        for p, state in self.state.items():
            for name, value in state.items():
                same = torch.empty_like(p) if value.shape == p.shape else torch.empty_like(value, device=p.device)
                state[name] = same.copy_(value)

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient, then the clipping of its group."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not self.state[p]:
                    self.state[p].update(self._initial_state(p))
            if params:
                self._update(params, [self.state[p] for p in params], group)
        return loss


class ClippedAdam(_Clipped):
    """Adam (Kingma and Ba) followed by w = clamp(w, -clip, clip), per parameter group.

    Args:
        params: parameters or groups; a group may carry its own `lr` and `clip`.
        lr: learning rate, > 0; a 0-D tensor on the parameters' device can be changed while a captured step runs.
        betas: decay rates in [0, 1).
        eps: added to the denominator, > 0.
        clip: largest absolute value of a parameter after each step, > 0; None for plain Adam.

    Raises:
        ValueError: a number is out of its range.
    """

    _fixed: ClassVar[dict] = {"weight_decay": 0, "amsgrad": False, "maximize": False}

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 5e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        eps: float = 1e-8,
        clip: float | None = None,
    ):
        self._validate(lr, clip)
        if not all(0 <= b < 1 for b in betas):
            raise ValueError(f"ClippedAdam expects betas in [0, 1); got {betas!r}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "clip": clip, **self._fixed})

    def _initial_state(self, p: Tensor) -> dict[str, Tensor]:
        return {
            "step": torch.zeros((), dtype=torch.float32, device=p.device),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.zeros_like(p),
        }

    def _update(self, params: list[Tensor], states: list[dict], group: dict) -> None:
        adam_clip_(
            params,
            [p.grad for p in params],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [s["step"] for s in states],
            lr=group["lr"],
            betas=tuple(group["betas"]),
            eps=group["eps"],
            clip=group["clip"],
        )


class ClippedRMSprop(_Clipped):
    """RMSprop without momentum, as WGAN uses it, followed by w = clamp(w, -clip, clip), per parameter group.

    Args:
        params: parameters or groups; a group may carry its own `lr` and `clip`.
        lr: learning rate, > 0; a number or a 0-D tensor.
        alpha: decay rate of the squared gradient's average, in [0, 1).
        eps: added to the denominator, > 0.
        clip: largest absolute value of a parameter after each step, > 0; None for plain RMSprop.

    Raises:
        ValueError: a number is out of its range.
    """

    _fixed: ClassVar[dict] = {"weight_decay": 0, "momentum": 0, "centered": False, "maximize": False}

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 5e-5,
        alpha: float = 0.99,
        eps: float = 1e-8,
        clip: float | None = None,
    ):
        self._validate(lr, clip)
        if not 0 <= alpha < 1:
            raise ValueError(f"ClippedRMSprop expects alpha in [0, 1); got {alpha!r}")
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "clip": clip, **self._fixed})

    def _initial_state(self, p: Tensor) -> dict[str, Tensor]:
        return {
            "step": torch.zeros((), dtype=torch.float32, device=p.device),
            "square_avg": torch.zeros_like(p),
        }

    def _update(self, params: list[Tensor], states: list[dict], group: dict) -> None:
        torch._foreach_add_([s["step"] for s in states], 1)
        rmsprop_clip_(
            params,
            [p.grad for p in params],
            [s["square_avg"] for s in states],
            lr=group["lr"],
            alpha=group["alpha"],
            eps=group["eps"],
            clip=group["clip"],
        )
