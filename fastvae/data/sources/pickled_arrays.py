"""What numpy arrays and Python 3's bytes are written as in pickles: calls, which are recognised but never made."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvae.files.places import shown
from fastvae.files.reading import Malformed

_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class Name:
    """What GLOBAL names; it is never imported."""

    text: str


@dataclass
class _Array:
    """An array before BUILD has given it shape and contents."""

    values: np.ndarray | None = None


class _Uint8:
    """The type of the elements, the only one that is read."""


def call(name: Any, arguments: Any) -> Any:
    """What REDUCE would return for one of the known calls.

    Raises:
        Malformed: it is another one, or has other arguments than numpy and Python write.
    """
    text = expect(name, Name).text
    if text not in _STANDS_FOR:
        raise Malformed(f"it calls {shown(text[:100])}, and nothing is called here")
    return _STANDS_FOR[text](*expect(arguments, tuple))


def build(target: Any, state: Any) -> None:
    """What BUILD does to an array or to the type of its elements.

    Raises:
        Malformed: it is anything else, or not in the state that numpy writes.
    """
    expect(target, _Array, _Uint8)
    expect(state, tuple)
    if isinstance(target, _Array):
        _, shape, element, is_fortran, data = state
        target.values = _array(data, element, shape, "F" if is_fortran else "C")
    elif state[2:5] != (None, None, None):  # subarrays, names and fields
        raise Malformed("it has an array of records; CIFAR's are of uint8")


def expect(value: Any, *types: type) -> Any:
    """The value, if it has exactly one of the types.

    Raises:
        Malformed: it has another type.
    """
    if type(value) not in types:
        expected = " or ".join(kind.__name__.lstrip("_") for kind in types)
        raise Malformed(f"expected {expected}; got {type(value).__name__.lstrip('_')}")
    return value


def finished(value: Any) -> Any:
    """A value that may be in the result: an array instead of its description.

    Raises:
        Malformed: it describes something else, or is not complete.
    """
    if isinstance(value, _Array):
        if value.values is None:
            raise Malformed("an array has no contents")
        return value.values
    if isinstance(value, Name | _Uint8):
        raise Malformed(f"it has {shown(value.text[:100]) if isinstance(value, Name) else 'a dtype'} as a value")
    return value


def _array(data: Any, element: Any, shape: Any, order: Any) -> np.ndarray:
    expect(element, _Uint8)
    lengths = [expect(length, int) for length in expect(shape, tuple)]
    values = np.frombuffer(expect(data, bytes), np.uint8)
    if len(lengths) > _MOST_DIMENSIONS or min(lengths, default=0) < 0 or math.prod(lengths) != len(values):
        raise Malformed(f"an array of {len(values)} bytes cannot have its shape")
    return values.reshape(lengths, order="F" if order == "F" else "C")


def _unfinished_array(kind: Any, shape: Any, code: Any) -> _Array:
    if expect(kind, Name).text != "numpy.ndarray":
        raise Malformed(f"it has an array of the type {shown(kind.text[:100])}")
    return _Array()


def _element(code: Any, *_: Any) -> _Uint8:
    if _text(code) not in ("u1", "|u1", "uint8"):
        raise Malformed(f"it has an array of {shown(_text(code)[:100])}; CIFAR's are of uint8")
    return _Uint8()


def _encoded(text: Any, encoding: Any) -> bytes:
    if _text(encoding) not in ("latin1", "latin-1"):
        raise Malformed(f"it has bytes as {shown(_text(encoding)[:100])}; Python writes them as latin1")
    return expect(text, str).encode("latin-1")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else expect(value, str)


# What numpy and Python 3 write as calls: an empty array that BUILD fills, the type of its elements, an array with its
# contents (protocol 5), and bytes (protocol 2).
_STANDS_FOR: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _unfinished_array,
    "numpy._core.multiarray._reconstruct": _unfinished_array,
    "numpy.dtype": _element,
    "numpy.core.numeric._frombuffer": lambda *arguments: _Array(_array(*arguments)),
    "numpy._core.numeric._frombuffer": lambda *arguments: _Array(_array(*arguments)),
    "_codecs.encode": _encoded,
}
