"""Reads Python pickles of plain values and uint8 arrays, without running any code.

`pickle.load` calls whatever a file names. Here `pickletools` parses the opcodes, and the few that CIFAR's files consist
of build lists, tuples, dictionaries, integers and strings. A call is never made: the four that numpy arrays and Python
3's bytes are written as are recognised by name and replaced by what they stand for. Everything else is refused by its
name.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any

from fastvae.data.sources.pickled_arrays import Name, build, call, expect, finished
from fastvae.files.places import shown
from fastvae.files.reading import Malformed

# CIFAR-100's largest file has 200,000. Bounds time and memory: a list of one byte in the file takes 60 in memory.
_MOST_OPCODES = 500_000
_NEWEST_PROTOCOL = 5


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
    except (IndexError, KeyError):  # of the stack or the memo
        raise Malformed("an opcode refers to what is not there") from None
    # Whatever else pickletools raises, and a call with other arguments, means damage.
    except (ValueError, TypeError, OverflowError) as error:
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
        return finished(self._stack[0])

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
        expect(self._stack[-1], list).extend(map(finished, items))

    def _set_item(self, _: None) -> None:
        self._update(self._pop(2))

    def _set_items(self, _: None) -> None:
        self._update(self._since_mark())

    def _update(self, items: list[Any]) -> None:
        target = expect(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[expect(key, str, bytes, int)] = finished(value)

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: None) -> None:
        self._put(len(self._memo))

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _global(self, name: str) -> None:
        self._stack.append(Name(name))

    def _stack_global(self, _: None) -> None:
        self._stack.append(Name(".".join(expect(part, str) for part in self._pop(2))))

    def _reduce(self, _: None) -> None:
        value = call(*self._pop(2))
        if isinstance(value, bytes):
            self._still_encoded -= len(value)
            if self._still_encoded < 0:
                raise Malformed("it has more bytes in its strings than in itself")
        self._stack.append(value)

    def _build(self, _: None) -> None:
        (state,) = self._pop(1)
        build(self._stack[-1], state)


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
