"""Pickles as Python 2 wrote CIFAR: `cPickle.dump(value, file, 2)` of str, int, list, dict and uint8 arrays."""

import struct
from typing import Any

import numpy as np

_BATCH = 1000  # items that cPickle puts into one APPENDS or SETITEMS
_FIXED = {True: b"\x88", False: b"\x89", None: b"N"}


def python2_pickle(value: Any) -> bytes:
    """The bytes, which `pickle.loads(..., encoding="bytes")` reads back.

    Args:
        value: its str become Python 2's str, whose opcodes Python 3 no longer writes.
    """
    return b"\x80\x02" + _Writer().save(value) + b"."


class _Writer:
    def __init__(self):
        self._put_count = 0
        self._names: dict[str, bytes] = {}

    def save(self, value: Any) -> bytes:
        if value is None or isinstance(value, bool):
            return _FIXED[value]
        if isinstance(value, int):
            return _integer(value)
        if isinstance(value, str):
            return _string(value.encode("latin-1")) + self._put()
        if isinstance(value, list):
            return b"]" + self._put() + self._filled([[item] for item in value], b"a", b"e")
        if isinstance(value, dict):
            return b"}" + self._put() + self._filled([[*pair] for pair in value.items()], b"s", b"u")
        if isinstance(value, tuple):
            return self._tuple(*map(self._saver, value))
        return self._array(value)

    def _saver(self, value: Any):
        return lambda: self.save(value)

    def _put(self) -> bytes:
        self._put_count += 1  # cPickle counts from 1, Python's own pickle from 0
        return b"q" + bytes([self._put_count]) if self._put_count < 256 else b"r" + struct.pack("<I", self._put_count)

    def _filled(self, items: list[list], one: bytes, many: bytes) -> bytes:
        written = b""
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            saved = b"".join(self.save(part) for item in batch for part in item)
            written += saved + one if len(batch) == 1 else b"(" + saved + many
        return written

    def _tuple(self, *savers) -> bytes:
        saved = b"".join(saver() for saver in savers)  # in order, since each takes numbers of the memo
        if len(savers) > 3:
            return b"(" + saved + b"t" + self._put()
        return saved + (b")", b"\x85", b"\x86", b"\x87")[len(savers)] + self._put()

    def _name(self, module: str, name: str) -> bytes:
        if name not in self._names:
            put = self._put()
            self._names[name] = b"h" + put[1:]
            return f"c{module}\n{name}\n".encode() + put
        return self._names[name]

    def _array(self, array: np.ndarray) -> bytes:
        """As `ndarray.__reduce__` of numpy 1 has it."""
        written = self._name("numpy.core.multiarray", "_reconstruct")
        written += self._tuple(lambda: self._name("numpy", "ndarray"), self._saver((0,)), self._saver("b"))
        written += b"R" + self._put()
        return written + self._state(array) + b"b"

    def _state(self, array: np.ndarray) -> bytes:
        data = array.tobytes().decode("latin-1")
        parts = (self._saver(1), self._saver(array.shape), self._uint8, self._saver(False), self._saver(data))
        return self._tuple(*parts)

    def _uint8(self) -> bytes:
        written = self._name("numpy", "dtype") + self._tuple(*map(self._saver, ("u1", 0, 1))) + b"R" + self._put()
        return written + self.save((3, "|", None, None, None, -1, -1, 0)) + b"b"


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    return b"M" + struct.pack("<H", value) if 0 <= value < 65536 else b"J" + struct.pack("<i", value)


def _string(data: bytes) -> bytes:
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data
