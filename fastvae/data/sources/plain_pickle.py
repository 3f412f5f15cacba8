"""Reads Python pickles of plain values and uint8 arrays, without running any code.

`pickle.load` calls whatever a file names. Here `pickletools` parses the opcodes, and the few that CIFAR's files consist
of build lists, tuples, dictionaries, integers and strings. A call is never made: the four that numpy arrays and Python
3's bytes are written as are recognised by name and replaced by what they stand for. Everything else is refused by its
name.
"""

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvae.files.places import shown
from fastvae.files.reading import Malformed

# CIFAR-100's largest file has 200,000. Bounds time and memory: a list of one byte in the file takes 60 in memory.
_MOST_OPCODES = 500_000
_NEWEST_PROTOCOL = 5
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class _Name:
    """What GLOBAL names; it is never imported."""

    text: str


@dataclass
class _Array:
    """An array before BUILD has given it shape and contents."""

    values: np.ndarray | None = None


class _Uint8:
    """The type of the elements, the only one that is read."""


def parse_pickle(data: bytes) -> Any:
    """The value in a pickle of protocol 2 to 5, as Python 2 and 3 and numpy 1 and 2 write them.

    Returns:
        Lists, tuples, dictionaries, integers, None, bool, str, bytes (Python 2's str) and uint8 arrays. A list or
        dictionary may contain itself.

    Raises:
        Malformed: it is damaged, or has anything else in it.
    """
    machine = _Machine(len(data))
    stream = io.BytesIO(data)
    try:
        for _ in range(_MOST_OPCODES):
            opcode = _next_opcode(stream)
            if opcode.name == "STOP":
                if stream.tell() != len(data):
                    raise Malformed(f"{len(data) - stream.tell()} bytes follow its end")
                return machine.result()
            machine.run(opcode.name, _argument(opcode, stream))
    except Malformed:
        raise
    # Whatever pickletools raises, and an operation without its operands, means damage.
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise Malformed(shown(str(error)) or type(error).__name__) from None
    raise Malformed(f"it has more than {_MOST_OPCODES} opcodes")


def _next_opcode(stream: io.BytesIO) -> pickletools.OpcodeInfo:
    """The next opcode; refused before its argument is read, which for some opcodes is decoded in intricate ways."""
    code = stream.read(1)
    if not code:
        raise Malformed("it is cut off")
    opcode = pickletools.code2op.get(code.decode("latin-1"))
    if opcode is None or opcode.name not in _READ:
        name = repr(code) if opcode is None else opcode.name
        raise Malformed(f"the opcode {name} at byte {stream.tell() - 1} is none that CIFAR's files consist of")
    return opcode


def _argument(opcode: pickletools.OpcodeInfo, stream: io.BytesIO) -> Any:
    if opcode.name == "GLOBAL":  # pickletools would interpret backslashes
        lines = stream.readline(), stream.readline()
        return ".".join(line.decode("ascii").removesuffix("\n") for line in lines)
    return opcode.arg and opcode.arg.reader(stream)


class _Machine:
    """The stack and the memo of a pickle, as in the specification in `pickletools`.

    Args:
        size: of the pickle, in bytes.
    """

    def __init__(self, size: int):
        # Bytes that are written as text are encoded once each; a hostile file may do that to one text a million times.
        self._still_encoded = size
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below each MARK
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        """The value that is left at the end."""
        if len(self._stack) != 1 or self._outer:
            raise Malformed("it ends before its value is complete")
        return _finished(self._stack[0])

    def run(self, name: str, argument: Any) -> None:
        """Does what an opcode other than STOP says."""
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name](argument))
        else:
            _OPERATIONS[name](self, argument)

    def _mark(self, _: None) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise Malformed("an opcode lacks its operands")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _tuple_of(self, count: int) -> None:
        self._stack.append(tuple(self._pop(count)))

    def _tuple(self, _: None) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _append(self, _: None) -> None:
        self._extend(self._pop(1))

    def _appends(self, _: None) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        _expect(self._stack[-1], list).extend(map(_finished, items))

    def _set_item(self, _: None) -> None:
        self._update(self._pop(2))

    def _set_items(self, _: None) -> None:
        self._update(self._since_mark())

    def _update(self, items: list[Any]) -> None:
        target = _expect(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_expect(key, str, bytes, int)] = _finished(value)

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: None) -> None:
        self._put(len(self._memo))

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _global(self, name: str) -> None:
        self._stack.append(_Name(name))

    def _stack_global(self, _: None) -> None:
        self._stack.append(_Name(".".join(_expect(part, str) for part in self._pop(2))))

    def _reduce(self, _: None) -> None:
        name, arguments = self._pop(2)
        text = _expect(name, _Name).text
        if text not in _STANDS_FOR:
            raise Malformed(f"it calls {shown(text[:100])}, and nothing is called here")
        value = _STANDS_FOR[text](*_expect(arguments, tuple))
        if isinstance(value, bytes):
            self._still_encoded -= len(value)
            if self._still_encoded < 0:
                raise Malformed("it has more bytes in its strings than in itself")
        self._stack.append(value)

    def _build(self, _: None) -> None:
        (state,) = self._pop(1)
        target, state = _expect(self._stack[-1], _Array, _Uint8), _expect(state, tuple)
        if isinstance(target, _Array):
            _, shape, element, is_fortran, data = state
            target.values = _array(data, element, shape, "F" if is_fortran else "C")
        elif state[2:5] != (None, None, None):  # subarrays, names and fields
            raise Malformed("it has an array of records; CIFAR's are of uint8")


def _expect(value: Any, *types: type) -> Any:
    if type(value) not in types:
        expected = " or ".join(kind.__name__.lstrip("_") for kind in types)
        raise Malformed(f"expected {expected}; got {type(value).__name__.lstrip('_')}")
    return value


def _finished(value: Any) -> Any:
    """A value that may be in the result: an array instead of its description."""
    if isinstance(value, _Array):
        if value.values is None:
            raise Malformed("an array has no contents")
        return value.values
    if isinstance(value, _Name | _Uint8):
        raise Malformed(f"it has {shown(value.text[:100]) if isinstance(value, _Name) else 'a dtype'} as a value")
    return value


def _array(data: Any, element: Any, shape: Any, order: Any) -> np.ndarray:
    _expect(element, _Uint8)
    lengths = [_expect(length, int) for length in _expect(shape, tuple)]
    values = np.frombuffer(_expect(data, bytes), np.uint8)
    if len(lengths) > _MOST_DIMENSIONS or min(lengths, default=0) < 0 or math.prod(lengths) != len(values):
        raise Malformed(f"an array of {len(values)} bytes cannot have its shape")
    return values.reshape(lengths, order="F" if order == "F" else "C")


def _unfinished_array(kind: Any, shape: Any, code: Any) -> _Array:
    if _expect(kind, _Name).text != "numpy.ndarray":
        raise Malformed(f"it has an array of the type {shown(kind.text[:100])}")
    return _Array()


def _element(code: Any, *_: Any) -> _Uint8:
    if _text(code) not in ("u1", "|u1", "uint8"):
        raise Malformed(f"it has an array of {shown(_text(code)[:100])}; CIFAR's are of uint8")
    return _Uint8()


def _encoded(text: Any, encoding: Any) -> bytes:
    if _text(encoding) not in ("latin1", "latin-1"):
        raise Malformed(f"it has bytes as {shown(_text(encoding)[:100])}; Python writes them as latin1")
    return _expect(text, str).encode("latin-1")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else _expect(value, str)


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


def _protocol(_: _Machine, version: int) -> None:
    if not 2 <= version <= _NEWEST_PROTOCOL:
        raise Malformed(f"it has protocol {version}; 2 to {_NEWEST_PROTOCOL} are read")


def _same(value: Any) -> Any:
    return value


_CONSTANTS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _same),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _same),
    # Python 2's str, which pickletools returns as text.
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), lambda text: text.encode("latin-1")),
    "BYTEARRAY8": bytes,
    "NONE": _same,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
}
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _protocol,
    "FRAME": lambda machine, _: None,
    "MARK": _Machine._mark,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine._put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine._get),
    "MEMOIZE": _Machine._memoize,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}
_READ = {"STOP", *_CONSTANTS, *_OPERATIONS}
