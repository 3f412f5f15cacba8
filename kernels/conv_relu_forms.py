"""The forms in which a GPU can compute convolution, bias and ReLU, and the trial that chooses among them.

    fused             one cuDNN kernel. torch hands it its own output as a map z, to be added zero times; an engine that
                      does add it makes NaN of whatever NaN the output's memory holds.
    fused with zeros  the same kernel with a z of zeros: always finite, but an engine that adds it reads one map more.
    one more pass     a plain cuDNN convolution, then one Triton kernel for bias and ReLU, which reads and writes its
                      result once more.
    ATen              a plain cuDNN convolution, then two such passes: only where Triton does not run.

Which engines cuDNN has, and what they cost, depends on its version, the GPU, the dtype and the shape. So the first call
of each kind runs all forms, checks their results, times those that are right and keeps the fastest.
"""

import logging
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import has_triton, map_format

Form = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # x, weight, bias, padding -> y in channels_last

FUSED, WITH_ZEROS, ONE_MORE_PASS, ATEN = "fused", "fused with zeros", "one more pass", "ATen"

logger = logging.getLogger("fastvae")

# Largest difference between two right forms: three roundings to the eight bits of bfloat16 give 0.4 %; garbage in the
# output's memory gives anything.
_SAME = 0.02
_ROUNDS = 7
# Cycles for which the device is kept busy before the timing, some 5 ms: the host queues all calls meanwhile, so that
# only the device's time counts, as in a CUDA graph.
_HEAD_START = 10_000_000


def aten(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """torch's operations, two passes over the map after the convolution unless a compiler fuses them."""
    return F.conv2d(x, weight, bias, padding=padding).relu_().contiguous(memory_format=map_format(x.device))


def one_more_pass(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """A plain convolution and one Triton kernel."""
    from .conv_relu_triton import bias_relu_

    y = F.conv2d(x, weight, padding=padding).contiguous(memory_format=torch.channels_last)
    return bias_relu_(y, bias)


def fused(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """One cuDNN kernel, which may add zero times what its output's memory holds."""
    y = torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (padding, padding), (1, 1), 1)
    return y.contiguous(memory_format=torch.channels_last)


def fused_with(z: Tensor, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """One cuDNN kernel, which may add zero times z, [B, O, H, W] in channels_last: torch would copy any other."""
    y = torch.cudnn_convolution_add_relu(x, weight, z, 0, bias, (1, 1), (padding, padding), (1, 1), 1)
    return y.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Choice:
    """What a trial found.

    Attributes:
        name: of the fastest form.
        form: it.
        milliseconds: medians of the device's time for one call, of every form that was right.
        refused: why the others are out, by name.
        zeros: what `form` adds, if it adds something; kept, since captured graphs know its address.
    """

    name: str
    form: Form
    milliseconds: dict[str, float]
    refused: dict[str, str]
    zeros: Tensor | None = None


_choices: dict[tuple, Choice] = {}


def choose(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Form:
    """The form for calls like this one; the first of each kind, outside captures, makes the trial."""
    cudnn = torch.backends.cudnn
    engines = (cudnn.deterministic, cudnn.conv.fp32_precision)  # with other flags cuDNN chooses among others
    key = (x.device, x.dtype, x.shape, x.stride(), weight.shape, padding, *engines)
    if key not in _choices:
        always_right = one_more_pass if has_triton() else aten
        if torch.cuda.is_current_stream_capturing():
            return always_right  # a capture can neither check nor time
        try:
            with torch.cuda.device_of(x):
                choice = _trial(x, weight, bias, padding)
        except torch.OutOfMemoryError:  # a trial holds several maps; the call may fit
            choice = None
        if choice is None:
            return always_right
        _choices[key] = choice
    return _choices[key].form


def choices() -> list[dict[str, Any]]:
    """The trials of this process, for records: shapes, the chosen form, every form's time or why it is out."""
    return [
        {
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "x": list(shape),
            "weight": list(weight),
            "padding": padding,
            "chosen": choice.name,
            "milliseconds": choice.milliseconds,
            "refused": choice.refused,
        }
        for (device, dtype, shape, _, weight, padding, *_), choice in _choices.items()
    ]


def _trial(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Choice | None:
    """The choice, or None if nothing can be learned from these operands."""
    operands = (x, weight, bias, padding)
    expected = aten(*operands)
    if not expected.isfinite().all():
        return None
    zeros = _zeros_like(expected)
    forms: dict[str, Form] = {FUSED: fused, WITH_ZEROS: partial(fused_with, zeros)}
    if has_triton():
        forms[ONE_MORE_PASS] = one_more_pass
    refused = {name: reason for name, form in forms.items() if (reason := _fault(form, operands, expected))}
    for name, reason in refused.items():
        if not any(name in choice.refused for choice in _choices.values()):  # once; `choices` has them all
            logger.info("conv_relu: the form %r %s for %s", name, reason, _summary(x, weight))
    forms = {name: form for name, form in forms.items() if name not in refused}
    if not forms:
        logger.warning("conv_relu: torch's separate kernels run for %s, since no other form does", _summary(x, weight))
        return Choice(ATEN, aten, {}, refused)
    milliseconds = _milliseconds(forms, operands)
    best = min(forms, key=milliseconds.__getitem__)
    return Choice(best, forms[best], milliseconds, refused, zeros if best == WITH_ZEROS else None)


def _zeros_like(y: Tensor) -> Tensor:
    """Zeros with y's shape, dtype and layout, in memory that another choice keeps where there is enough."""
    kept = (choice.zeros for choice in _choices.values() if choice.zeros is not None)
    fitting = (z for z in kept if (z.device, z.dtype) == (y.device, y.dtype) and z.numel() >= y.numel())
    if (z := next(fitting, None)) is None:
        return torch.zeros_like(y)
    return z.as_strided(y.shape, y.stride())


def _fault(form: Form, operands: tuple, expected: Tensor) -> str | None:
    """Why a form cannot be used, or None."""
    try:
        form(*operands)  # cuDNN may try several engines at its first call
        poison = torch.full_like(expected, torch.nan)
        del poison  # the allocator reuses this memory for the next tensor of that size
        return None if _agree(form(*operands), expected) else "gives a wrong result"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # cuDNN has no engine for it, or Triton has no compiler: errors of many classes
        return f"is refused ({(str(error).strip() or type(error).__name__).splitlines()[0]})"


def _agree(y: Tensor, expected: Tensor) -> bool:
    return bool((y.float() - expected.float()).norm() <= _SAME * expected.float().norm())


def _milliseconds(forms: dict[str, Form], operands: tuple) -> dict[str, float]:
    """The median of the device's time for one call of each form, called in turns."""
    events = {name: [] for name in forms}
    torch.cuda._sleep(_HEAD_START)
    for _ in range(_ROUNDS):
        for name, form in forms.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            form(*operands)
            end.record()
            events[name].append((begin, end))
    torch.cuda.synchronize()
    return {name: statistics.median(b.elapsed_time(e) for b, e in pairs) for name, pairs in events.items()}


def _summary(x: Tensor, weight: Tensor) -> str:
    return f"{x.dtype} {list(x.shape)} with filters {list(weight.shape)}"
