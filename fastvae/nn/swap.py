"""Replaces replication-padded convolutions in a model built from torch's modules by ReplicationConv2d."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from fastvae.nn.replication_conv import TAKES, ReplicationConv2d, as_arguments, unsupported


class Swapped(NamedTuple):
    """A layer that is now a ReplicationConv2d: its name in the model, and 2 if it absorbed an upsampling, else 1."""

    name: str
    upsample: int


class Left(NamedTuple):
    """A layer that was not replaced: its name in the model, "" for the model itself, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class SwapReport:
    """What `swap_` did, in the order of the model's layers; can be printed."""

    swapped: tuple[Swapped, ...]
    left: tuple[Left, ...]

    def __str__(self) -> str:
        if not self.swapped and not self.left:
            return "Nothing to swap: the model has no torch.nn.Conv2d with replication padding left."
        count, upsampling = len(self.swapped), sum(s.upsample == 2 for s in self.swapped)
        head = f"Swapped {count or 'no'} convolution{'s' * (count != 1)}"
        if upsampling:
            head += f", {upsampling} along with the x2 upsampling before it"
        lines = [head + (":" if self.swapped else ".")]
        lines += [f"  {s.name}" + ("  (upsample=2)" if s.upsample == 2 else "") for s in self.swapped]
        if self.left:
            lines.append("Left as they were:")
            lines += [f"  {left.name or '(the model itself)'}: {left.reason}" for left in self.left]
        return "\n".join(lines)


def swap_(model: nn.Module) -> SwapReport:
    """Replaces, in place, the replication-padded 3x3 convolutions of any torch model by ReplicationConv2d.

    Outputs and gradients stay the same up to rounding, and the keys of the `state_dict` do not change. The new modules
    hold the same Parameter objects as the old ones, so an existing optimiser still works. Swap before `torch.compile`,
    before registering hooks, and not in models that are differentiated twice (a gradient penalty).

    Every `torch.nn.Conv2d` with kernel size 3, stride 1, padding 1, dilation 1, groups 1 and `padding_mode="replicate"`
    is replaced. It absorbs what comes directly before it in a `torch.nn.Sequential`: an `nn.Upsample` or
    `nn.UpsamplingNearest2d` of scale factor 2 and mode nearest, and an `nn.ReplicationPad2d(1)` before a convolution
    without padding. Each of those is replaced by an `nn.Identity`, so that indices stay the same.

    Only a Sequential, or a subclass with the same `forward`, defines the order in which its modules run; it is assumed
    to be called as a unit, not sliced or indexed. In a module with its own `forward`, an Upsample beside a convolution
    may run after it, twice or never, so it is not absorbed: write `ReplicationConv2d(..., upsample=2)` in the code.

    Args:
        model: any module. If it is itself such a convolution, it is reported as not replaced: only submodules are.

    Returns:
        Which layers were swapped, and which were not although they pad by replication, with the reason. Convolutions
        with other padding are not listed.

    Raises:
        ValueError: the model is already compiled.
    """
    if _is_compiled(model):
        raise ValueError(
            "swap_ expects a model that is not compiled yet; got one that went through torch.compile: "
            "call swap_(model) first, then torch.compile(model)"
        )
    names = {module: name for name, module in model.named_modules()}
    slots = [(parent, key, child) for parent in names for key, child in _children(parent)]
    uses = Counter(child for _, _, child in slots)
    new, left = {}, {}
    for run in [[model], *_runs(model, uses)]:
        for i, module in enumerate(run):
            if isinstance(module, nn.Conv2d):
                swap, stays = _decide(module, run[:i], uses)
                left |= stays
                if swap:
                    new[module] = _replacement(module, swap.upsample)
                    new |= {absorbed: nn.Identity().train(absorbed.training) for absorbed in swap.absorbed}
            elif reason := _why_not_opened(module):
                left[module] = reason
    for parent, key, child in slots:
        if child in new:
            parent.add_module(key, new[child])
    return SwapReport(
        tuple(Swapped(name, new[m].upsample) for m, name in names.items() if m in new and isinstance(m, nn.Conv2d)),
        tuple(Left(name, left[m]) for m, name in names.items() if m in left),
    )


# Which module runs directly before which.


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """All (name, child) pairs; `named_children` would list a module with two names only once."""
    if isinstance(module, torch.jit.ScriptModule):
        return []
    return [(key, child) for key, child in module._modules.items() if child is not None]


def _runs(module: nn.Module, uses: Counter) -> Iterator[list[nn.Module]]:
    """All submodules, as lists in which each module's input is the output of the one before it."""
    if _is_closed(module):
        return
    if _runs_in_order(module):
        run = list(_flatten(module, uses))
        yield run
    else:
        run = [child for _, child in _children(module)]
        yield from ([child] for child in run)
    for child in run:
        yield from _runs(child, uses)


def _flatten(sequential: nn.Sequential, uses: Counter) -> Iterator[nn.Module]:
    for _, child in _children(sequential):
        # Not flattened: a nested Sequential with a hook, which sees its input, or with several uses, where what comes
        # before it differs.
        if _runs_in_order(child) and uses[child] == 1 and not _why_not_bare(child):
            yield from _flatten(child, uses)
        else:
            yield child


def _runs_in_order(module: nn.Module) -> bool:
    """Whether it is a Sequential, or of a subclass that does not change how it runs."""
    kept = (getattr(type(module), name, None) is getattr(nn.Sequential, name) for name in ("forward", "__iter__"))
    return isinstance(module, nn.Sequential) and all(kept) and "forward" not in vars(module)


def _is_compiled(module: nn.Module) -> bool:
    # torch.compile's wrapper is recognised by its child: comparing classes would import the compiler.
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


def _is_closed(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule) or _is_compiled(module)


# What is swapped, what goes with it, and the reasons against.


class _Swap(NamedTuple):
    upsample: int
    absorbed: tuple[nn.Module, ...]


def _decide(conv: nn.Conv2d, before: Sequence[nn.Module], uses: Counter) -> tuple[_Swap | None, dict[nn.Module, str]]:
    """How to swap a convolution that runs directly after `before`, if at all; modules that stay, with reasons."""
    wrong, pad = unsupported(conv), None
    if wrong and before and isinstance(before[-1], nn.ReplicationPad2d):
        *before, pad = before
        wrong = {name: value for name, value in wrong.items() if name not in ("padding", "padding_mode")}
    elif conv.padding_mode != "replicate":
        return None, {}
    upsampling = before[-1] if before and _doubles(before[-1]) else None
    # Already a ReplicationConv2d: only an upsampling may still be absorbed.
    done = isinstance(conv, ReplicationConv2d)
    if done and (upsampling is None or conv.upsample == 2):
        return None, {}

    if reason := _why_not_swapped(conv, wrong, pad, uses):
        return None, {conv: reason}
    absorbed = () if pad is None else (pad,)
    if upsampling is None:
        return _Swap(1, absorbed), {}
    if reason := _why_not_absorbed(upsampling, conv, uses):
        return None if done else _Swap(1, absorbed), {upsampling: reason}
    return _Swap(2, (upsampling, *absorbed)), {}


def _doubles(module: nn.Module) -> bool:
    return (
        type(module) in (nn.Upsample, nn.UpsamplingNearest2d)
        and module.scale_factor in (2, (2, 2))
        # For a factor of 2 both give the same pixels.
        and module.mode in ("nearest", "nearest-exact")
    )


def _why_not_swapped(conv: nn.Conv2d, wrong: dict, pad: nn.ReplicationPad2d | None, uses: Counter) -> str:
    if isinstance(conv, nn.LazyConv2d):
        return "has no weight yet; run the model once, then swap"
    if parametrize.is_parametrized(conv):
        return "is parametrized: its weight is computed at each call"
    if type(conv) not in (nn.Conv2d, ReplicationConv2d):
        return f"is a {type(conv).__name__}, which may do more than torch.nn.Conv2d"
    if wrong:
        return f"has {as_arguments(wrong)}; {TAKES}"
    if reason := _why_not_bare(conv) or _why_not_its_parameters(conv):
        return reason
    if pad is not None:
        if conv.padding not in ((0, 0), "valid"):
            return f"has padding={conv.padding!r} on top of the ReplicationPad2d before it"
        if type(pad) is not nn.ReplicationPad2d:
            return f"follows a {type(pad).__name__}, which may do more than torch.nn.ReplicationPad2d"
        if pad.padding != (1, 1, 1, 1):
            return f"follows a ReplicationPad2d of {pad.padding}; ReplicationConv2d pads by 1 on each side"
        if reason := _why_not_absorbed(pad, conv, uses):
            return f"follows a ReplicationPad2d that {reason}"
    if not uses[conv]:
        return "cannot be replaced in place; build it as fastvae.nn.ReplicationConv2d"
    return ""


def _why_not_absorbed(module: nn.Module, conv: nn.Conv2d, uses: Counter) -> str:
    if uses[module] > 1:
        return "is used in several places; give each its own"
    if uses[conv] > 1:
        return "stands before a convolution that is used in several places"
    return _why_not_bare(module)


def _why_not_bare(module: nn.Module) -> str:
    """Why calling this object does more than its class's `forward`; empty if it does not."""
    if any(hooks for name, hooks in vars(module).items() if name.endswith("_hooks")):
        return "has hooks; swap before registering them"
    if "forward" in vars(module):
        return "has its own forward, set on the object"
    return "is compiled already; swap first, then compile" if _is_compiled(module) else ""


def _why_not_its_parameters(conv: nn.Conv2d) -> str:
    holds_buffers = any(buffer is not None for buffer in conv._buffers.values())
    if set(conv._parameters) != {"weight", "bias"} or holds_buffers or conv._modules:
        return "holds something else than a weight and a bias"
    for name, p in conv._parameters.items():
        if p is not None and (type(p) is not nn.Parameter or not p.is_floating_point()):
            return f"has a {name} that is a {type(p).__name__} of {p.dtype}, not a Parameter of floating point"
    return ""


def _why_not_opened(module: nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return "is a TorchScript module, whose layers cannot be replaced; swap first, then script or trace"
    if _is_compiled(module) and any(
        isinstance(m, nn.ReplicationPad2d) or (isinstance(m, nn.Conv2d) and m.padding_mode == "replicate")
        for m in module.modules()
        if not isinstance(m, ReplicationConv2d)
    ):
        return "is compiled already; swap first, then compile"
    return ""


def _replacement(conv: nn.Conv2d, upsample: int) -> ReplicationConv2d:
    # On "meta" nothing is allocated and no random numbers are drawn.
    new = ReplicationConv2d(conv.in_channels, conv.out_channels, device="meta", upsample=upsample)
    new.weight, new.bias = conv.weight, conv.bias
    new.train(conv.training)
    # Keep attributes that the model's code set on the module.
    for name, value in vars(conv).items():
        vars(new).setdefault(name, value)
    return new
