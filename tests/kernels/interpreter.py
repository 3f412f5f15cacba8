"""Triton's interpreter in this process: kernels run on CPU tensors, element by element in NumPy.

Triton itself decides between interpreter and compiler when a kernel is defined, from an environment variable. Here
a kernel is interpreted only inside the block, so that the same process can also compile it. Two faults of the
interpreter (Triton 3.6 and 3.7) are mended on the way: it multiplies the raw bits of bfloat16, and it truncates where
the hardware rounds to nearest even.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import triton.language as tl
from triton.runtime import interpreter as upstream
from triton.runtime.jit import JITFunction

from fastvae.kernels import dispatch
from tests.kernels.poison import poisoned_memory

_dot, _cast = upstream.InterpreterBuilder.create_dot, upstream.InterpreterBuilder.cast_impl
_patch_tensor, _patch_language = upstream._patch_lang_tensor, upstream._patch_lang


def _rounded_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 -> the bits of the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _cast_rounding(self, source, dtype):
    if source.dtype.scalar == tl.float32 and dtype.scalar == tl.bfloat16:
        return upstream.TensorHandle(_rounded_to_bfloat16(source.data).reshape(source.data.shape), tl.bfloat16)
    return _cast(self, source, dtype)


def _dot_in_float32(self, a, b, c, *rest):
    def widen(operand):
        return self.cast_impl(operand, tl.float32) if operand.dtype.scalar == tl.bfloat16 else operand

    return _dot(self, widen(a), widen(b), c, *rest)


def _patch_tensor_with_index(tensor, scope):
    # Triton 3.6 with NumPy 2.4 cannot use a run-time number as the bound of a loop.
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(np.asarray(self.handle.data).reshape(-1)[0]))


@cache
def _interpreted_function(fn):
    return upstream.InterpretedFunction(fn).rewrite()


def _patch_all_of_the_language(fn):
    """Once a launch, for the kernel and what it calls, ours (`tl`) and Triton's (`tl.core`): each time takes 1 ms."""
    scope = _patch_language(fn)
    scope._changes += _patch_language(tl.cdiv.fn)._changes  # undone from the last to the first
    return scope


def _call(self, *args, **kwargs):
    """A device function that an interpreted kernel calls; the kernel's launch has patched the language."""
    return _interpreted_function(self.fn)(*args, **kwargs)


def _launch(kernel, grid, args, options):
    # A GPU gets Python's floats in single precision.
    args = [float(np.float32(x)) if type(x) is float else x for x in args]
    upstream.InterpretedFunction(kernel.fn).run(*args, grid=grid, warmup=False, **options)


@contextmanager
def interpreted(capability: tuple[int, int] = (9, 0)) -> Iterator[None]:
    """Within the block every op runs its Triton kernels, interpreted, with the tiles of this capability."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "__call__", _call)
        patch.setattr(upstream.InterpreterBuilder, "create_dot", _dot_in_float32)
        patch.setattr(upstream.InterpreterBuilder, "cast_impl", _cast_rounding)
        patch.setattr(upstream, "_patch_lang_tensor", _patch_tensor_with_index)
        patch.setattr(upstream, "_patch_lang", _patch_all_of_the_language)
        # A second evaluation of every integer operation; compiled kernels do not do it either.
        patch.setattr(upstream.interpreter_builder, "options", upstream.InterpreterOptions(sanitize_overflow=False))
        with poisoned_memory(), dispatch.force("triton", capability=capability, launch=_launch):
            yield
