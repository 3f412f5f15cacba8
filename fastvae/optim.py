"""Adam and RMSprop that clip the parameters after each update, with torch's optimiser interface.

State and `state_dict` are those of `torch.optim.Adam` and `torch.optim.RMSprop`: each can load the other's.

`step` never waits for the device and can be captured in a CUDA graph: the step counters are on the device, and so is
the learning rate if it is a tensor, which every replay reads. As with torch's optimisers, at least one step must run
before the capture, since the first step creates the state:

    lr = torch.tensor(5e-4, device="cuda")
    optimizer = ClippedAdam(model.parameters(), lr=lr, clip=0.01)
    ...                                    # some steps on a side stream, as torch requires
    with torch.cuda.graph(graph):
        loss(model, batch).backward()
        optimizer.step()
    lr.fill_(2.5e-4)                       # for all later replays
    graph.replay()

Inside `tables_copied_once` the graph does not copy the update's table of addresses at every replay:

    with tables_copied_once(), torch.cuda.graph(graph):
        ...
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastvae.kernels import adam_clip_, rmsprop_clip_, tables_copied_once

__all__ = ["ClippedAdam", "ClippedRMSprop", "tables_copied_once"]


class _Clipped(torch.optim.Optimizer):
    # Options of torch's class that have one value here; stored so that each class can load the other's state.
    _fixed: ClassVar[dict] = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, which may have its own options.

        Raises:
            ValueError: an option is out of range, or only supported by torch's class.
        """
        group = {**self.defaults, **param_group}
        for name, value in self._fixed.items():
            if group[name] != value:
                raise ValueError(
                    f"{type(self).__name__} supports only {name}={value}; got {name}={group[name]!r}: use torch's class"
                )
        self._check(group)
        lr, clip = group["lr"], group["clip"]
        if isinstance(lr, Tensor):
            if lr.dim():
                raise ValueError(f"{type(self).__name__} expects lr as a number or a 0-D tensor; got {list(lr.shape)}")
        elif not lr > 0:
            raise ValueError(f"{type(self).__name__} expects lr > 0; got {lr!r}")
        if clip is not None and not clip > 0:
            raise ValueError(f"{type(self).__name__} expects clip > 0 or None; got {clip!r}")
        super().add_param_group(param_group)
        _mark_capturable(self.param_groups[-1])

    def _check(self, group: dict[str, Any]) -> None:
        """Raises ValueError unless the options of the subclass are in range."""
        raise NotImplementedError

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("clip", self.defaults["clip"])
            _mark_capturable(group)
            for name, value in self._fixed.items():
                if group.setdefault(name, value) != value:
                    raise ValueError(
                        f"{type(self).__name__} supports only {name}={value}; the state to load has "
                        f"{name}={group[name]}: load it into torch's class"
                    )

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads state saved by this class or torch's, in any memory format.

        Existing state is overwritten in place, and so is a learning rate that is a tensor, so that a captured graph
        continues from the loaded state.
        """
        before, lrs = self.state, [group["lr"] for group in self.param_groups]
        if len(state_dict["param_groups"]) == len(self.param_groups):  # else torch raises
            # torch's classes save no clip: then each group keeps its own.
            pairs = zip(self.param_groups, state_dict["param_groups"], strict=True)
            state_dict = {**state_dict, "param_groups": [{"clip": own["clip"], **saved} for own, saved in pairs]}
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            for name, value in state.items():
                # The update reads parameter and state in the order of memory, so their layouts must agree. Step
                # counters must be on the parameters' device, where torch's loader only puts those of fused classes.
                new = torch.empty((), dtype=torch.float32, device=p.device) if name == "step" else torch.empty_like(p)
                old = before[p].get(name) if p in before else None
                if old is not None and (old.stride(), old.dtype, old.device) == (new.stride(), new.dtype, new.device):
                    new = old
                state[name] = new.copy_(value)
        for p, state in before.items():
            if p not in self.state:  # saved before the first step
                self.state[p] = {name: value.zero_() for name, value in state.items()}
        for group, lr in zip(self.param_groups, lrs, strict=True):
            if isinstance(lr, Tensor):
                group["lr"] = lr.copy_(torch.as_tensor(group["lr"]))
            elif isinstance(group["lr"], Tensor):
                group["lr"] = group["lr"].to(group["params"][0].device)

    @torch.no_grad()
    def step(self, closure=None, *, gate: Tensor | None = None):
        """Updates every parameter that has a gradient, then clips it as its group says.

        Args:
            closure: computes the loss, which is returned, and the gradients.
            gate: a 0-D tensor on the parameters' device. If it is zero, parameters and state stay as they are, which
                the host need not know: it is read by the kernel of the update, in a CUDA graph at every replay.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            sets: dict[tuple, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    sets.setdefault((p.device, p.dtype), []).append(p)
            for params in sets.values():
                self._update(params, [self._state_of(p) for p in params], group, gate)
        return loss

    def _state_of(self, p: Tensor) -> dict[str, Tensor]:
        state = self.state[p]
        if not state:
            if p.is_cuda and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(
                    f"{type(self).__name__} expects one step before a capture; got a parameter {list(p.shape)} without "
                    "state, which every replay of the graph would reset to zero"
                )
            state.update(self.initial_state(p))
        return state


def _mark_capturable(group: dict[str, Any]) -> None:
    # torch's class needs this to load a state whose step counters are on a GPU.
    group["capturable"] = all(p.is_cuda for p in group["params"])


class ClippedAdam(_Clipped):
    """Adam (Kingma and Ba) followed by w = clamp(w, -clip, clip), per parameter group.

    Args:
        params: parameters or groups; a group may carry its own `lr` and `clip`.
        lr: learning rate, > 0; a number, or a 0-D tensor on the parameters' device.
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
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "clip": clip, **self._fixed})

    def _check(self, group: dict[str, Any]) -> None:
        betas = group["betas"]
        if not (len(betas) == 2 and all(0 <= b < 1 for b in betas)):
            raise ValueError(f"ClippedAdam expects betas as two numbers in [0, 1); got {betas!r}")
        if not group["eps"] > 0:
            raise ValueError(f"ClippedAdam expects eps > 0; got {group['eps']!r}")

    def initial_state(self, p: Tensor) -> dict[str, Tensor]:
        """The state of a parameter before the first step, on its device."""
        return {
            "step": torch.zeros((), dtype=torch.float32, device=p.device),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.zeros_like(p),
        }

    def _update(self, params: list[Tensor], states: list[dict], group: dict, gate: Tensor | None) -> None:
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
            gate=gate,
        )


class ClippedRMSprop(_Clipped):
    """RMSprop without momentum, as WGAN uses it, followed by w = clamp(w, -clip, clip), per parameter group.

    Args:
        params: parameters or groups; a group may carry its own `lr` and `clip`.
        lr: learning rate, > 0; a number, or a 0-D tensor on the parameters' device.
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
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "clip": clip, **self._fixed})

    def _check(self, group: dict[str, Any]) -> None:
        if not 0 <= group["alpha"] < 1:
            raise ValueError(f"ClippedRMSprop expects alpha in [0, 1); got {group['alpha']!r}")
        if not group["eps"] > 0:
            raise ValueError(f"ClippedRMSprop expects eps > 0; got {group['eps']!r}")

    def initial_state(self, p: Tensor) -> dict[str, Tensor]:
        """The state of a parameter before the first step, on its device."""
        return {
            "step": torch.zeros((), dtype=torch.float32, device=p.device),
            "square_avg": torch.zeros_like(p),
        }

    def _update(self, params: list[Tensor], states: list[dict], group: dict, gate: Tensor | None) -> None:
        rmsprop_clip_(
            params,
            [p.grad for p in params],
            [s["square_avg"] for s in states],
            [s["step"] for s in states],
            lr=group["lr"],
            alpha=group["alpha"],
            eps=group["eps"],
            clip=group["clip"],
            gate=gate,
        )
