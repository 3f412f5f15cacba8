"""Puts ReplicationConv2d into a model that was built from torch's own modules."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from fastvae.nn.replication_conv import TAKES, ReplicationConv2d, as_arguments, unsupported


class Swapped(NamedTuple):
    """A layer that is a ReplicationConv2d now: its name in the model, and 2 if it took over an upsampling, else 1."""

    name: str
    upsample: int


class Left(NamedTuple):
    """A layer that stays as it was: its name in the model, "" for the model itself, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class SwapReport:
    """What `swap_` did, in the model's order. `print` it."""

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

    Outputs and gradients stay the same up to rounding, and so do the keys of the `state_dict`. The new modules hold
    the very Parameter objects of the old ones, so that an optimiser made before goes on. Swap before
    `torch.compile`, before registering hooks, and not where something differentiates twice (a gradient penalty).

    Replaced is every `torch.nn.Conv2d` with kernel size 3, stride 1, padding 1, dilation 1, groups 1 and
    `padding_mode="replicate"`. What stands directly before it in a `torch.nn.Sequential` goes with it: an
    `nn.Upsample` or `nn.UpsamplingNearest2d` of scale factor 2 and mode nearest, and an `nn.ReplicationPad2d(1)`
    before a convolution that does not pad itself. An `nn.Identity` takes the place of each, so that indices stay.

    Only Sequential, or a class derived from it with the same `forward`, says in which order its modules run; it is
    taken to be called as a whole, not sliced or indexed. In a module with a `forward` of its own, an Upsample beside
    a convolution may run after it, twice or never, so that it stays; there, write `ReplicationConv2d(...,
    upsample=2)` into the code.

    Args:
        model: any module. One that is itself such a convolution is left and reported: only what is inside is replaced.

    Returns:
        Which layers were swapped, and which were left though they pad by replication, with the reason. Convolutions
        with other padding are not mentioned.

    Raises:
        ValueError: the model is compiled already.
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
    """Every slot, where `named_children` would give a module that fills two only once."""
    if isinstance(module, torch.jit.ScriptModule):
        return []
    return [(key, child) for key, child in module._modules.items() if child is not None]


def _runs(module: nn.Module, uses: Counter) -> Iterator[list[nn.Module]]:
    """Everything below a module, as lists of modules of which each takes the result of the one before it."""
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
        # A hook on a nested Sequential sees what goes into it, and another use of it has something else before it.
        if _runs_in_order(child) and uses[child] == 1 and not _why_not_bare(child):
            yield from _flatten(child, uses)
        else:
            yield child


def _runs_in_order(module: nn.Module) -> bool:
    """Whether it is a Sequential, or of a class derived from it that leaves alone how it runs."""
    kept = (getattr(type(module), name, None) is getattr(nn.Sequential, name) for name in ("forward", "__iter__"))
    return isinstance(module, nn.Sequential) and all(kept) and "forward" not in vars(module)


def _is_compiled(module: nn.Module) -> bool:
    # torch.compile's wrapper by its only child: its class would cost the import of the compiler.
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


def _is_closed(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule) or _is_compiled(module)


# What is swapped, what goes with it, and the reasons against.


class _Swap(NamedTuple):
    upsample: int
    absorbed: tuple[nn.Module, ...]


def _decide(conv: nn.Conv2d, before: Sequence[nn.Module], uses: Counter) -> tuple[_Swap | None, dict[nn.Module, str]]:
    """What becomes of a convolution that runs directly after `before`, and which modules stay for which reason."""
    wrong, pad = unsupported(conv), None
    if wrong and before and isinstance(before[-1], nn.ReplicationPad2d):
        *before, pad = before
        wrong = {name: value for name, value in wrong.items() if name not in ("padding", "padding_mode")}
    elif conv.padding_mode != "replicate":
        return None, {}
    upsampling = before[-1] if before and _doubles(before[-1]) else None
    # Written by hand, or swapped before: only an upsampling may still be missing.
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
        # By the factor 2 both take the same pixels.
        and module.mode in ("nearest", "nearest-exact")
    )


def _why_not_swapped(conv: nn.Conv2d, wrong: dict, pad: nn.ReplicationPad2d | None, uses: Counter) -> str:
    if isinstance(conv, nn.LazyConv2d):
        return "has no weight yet; run the model once, then swap"
    if parametrize.is_parametrized(conv):
        return "is parametrized: its weight is computed anew at each call"
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
    """What makes a call of this object more than its class's `forward`; empty if nothing does."""
    if any(hooks for name, hooks in vars(module).items() if name.endswith("_hooks")):
        return "has hooks; swap before registering them"
    if "forward" in vars(module):
        return "has a forward of its own, set on the object"
    return "is compiled already; swap first, then compile" if _is_compiled(module) else ""


def _why_not_its_parameters(conv: nn.Conv2d) -> str:
    if set(conv._parameters) != {"weight", "bias"} or conv._buffers or conv._modules:
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
    # On "meta" nothing is allocated and no random number is drawn.
    new = ReplicationConv2d(conv.in_channels, conv.out_channels, device="meta", upsample=upsample)
    new.weight, new.bias = conv.weight, conv.bias
    new.train(conv.training)
    # Attributes that the model's own code has set on the module.
    for name, value in vars(conv).items():
        vars(new).setdefault(name, value)
    return new
