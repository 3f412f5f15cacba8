"""The reader of CIFAR's pickles: reads what Python and numpy write, refuses the rest by name, and runs nothing."""

import datetime
import pickle
import pickletools
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fastvae.data.sources import plain_pickle
from fastvae.data.sources.plain_pickle import parse_pickle
from fastvae.files.reading import Malformed
from tests.data.pickles import python2_pickle

VALUE = {
    "batch_label": "training batch 1 of 5",
    "labels": [6, 255, 256, 70000, -1, *range(2001)],
    "data": np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072),
    "again": np.array([1, 2, 3], np.uint8),
    "filenames": [f"{number}.png" for number in range(300)] + ["x" * 300],
    "one": ["a"],
    "empty": [[], {}, (), None, True, False],
}


def plain(value):
    """Arrays as lists, bytes as str."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return (value.dtype, value.tolist()) if isinstance(value, np.ndarray) else value


def test_python_2():
    data = python2_pickle(VALUE)
    names = [opcode.name for opcode, _, _ in pickletools.genops(data)]
    # What Python 3 does not write.
    assert {"SHORT_BINSTRING", "BINSTRING", "GLOBAL", "BINGET", "LONG_BINPUT", "APPENDS", "SETITEMS"} <= set(names)
    # A test of the fixture: numpy reads the same from it.
    assert plain(pickle.loads(data, encoding="bytes")) == plain(VALUE)
    assert plain(parse_pickle(data)) == plain(VALUE)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_python_3(protocol):
    read_only = np.frombuffer(b"\x00\xff\x80", np.uint8)
    value = {**VALUE, b"bytes": b"\xff" * 300, "columns": np.asfortranarray(VALUE["data"]), "read_only": read_only}
    assert plain(parse_pickle(pickle.dumps(value, protocol))) == plain(value)


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class WithState:
    pass


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "name"), [(Path.touch, "getattr"), (eval, "builtins?.eval"), (exec, "exec"), (getattr, "getattr")]
)
def test_no_code_runs(tmp_path, monkeypatch, protocol, function, name):
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "ran"
    arguments = (marker,) if function is Path.touch else (f"open({str(marker)!r}, 'w')",)
    with pytest.raises(Malformed, match=r"nothing is called here|none that CIFAR's files consist of"):
        parse_pickle(pickle.dumps({"data": Calls(function, *arguments)}, protocol))
    assert not marker.exists()


def test_the_pickles_of_the_test_above_would_run(tmp_path):
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps({"data": Calls(exec, f"import os; os.mkdir({str(marker)!r})")}))
    assert marker.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "the opcode BINFLOAT at byte 2"),
        ({1}, r"it calls (__builtin__|builtins)\.set, and nothing is called here"),
        (WithState(), "the opcode NEWOBJ at byte"),
        (np.float32, "it has numpy.float32 as a value"),
        ([np.dtype("u1")], "a dtype as a value"),
        (np.zeros(2, np.int64), "it has an array of i8; CIFAR's are of uint8"),
        (np.zeros(2, object), "it has an array of O8"),
        (np.zeros(2, [("a", "u1")]), "it has an array of V1"),
        (np.ma.zeros(2, np.uint8), "it calls numpy.ma.*_mareconstruct"),
        (np.zeros(2, np.uint8).view(np.recarray), "array of the type numpy"),
        (np.uint8(3), "it calls numpy.*scalar"),
        (datetime.date(2000, 1, 1), "it calls datetime.date"),
        (10**700, "the opcode LONG4 at byte 2"),
        ({(1, 2): 3}, "expected str or bytes or int; got tuple"),
    ],
)
def test_what_else_is_refused_by_name(value, message):
    with pytest.raises(Malformed, match=message):
        parse_pickle(pickle.dumps(value, 2))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is cut off"),
        (b"\x80\x02\xff.", r"the opcode b'\\xff' at byte 2"),
        (b"(dp0\nS'data'\np1\n.", "the opcode DICT at byte 1"),
        (b"\x80\x02S'\\d'\n.", "the opcode STRING at byte 2"),
        (b"\x80\x09.", "it has protocol 9; 2 to 5 are read"),
        (b"\x80\x02.", "before its value is complete"),
        (b"\x80\x02(].", "before its value is complete"),
        (b"\x80\x02].extra", "5 bytes follow its end"),
        (b"\x80\x02]u.", "refers to what is not there"),
        (b"\x80\x02\x86.", "lacks its operands"),
        (b"\x80\x02h\x07.", "refers to what is not there"),
        (b"\x80\x02K\x01K\x02a.", "expected list; got int"),
        (b"\x80\x02}(K\x01u.", "argument 2 is shorter"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt\x52.", "has no contents"),
        (b"\x80\x02T\xff\xff\xff\x7f.", "expected 2147483647 bytes"),
        (b"\x80\x02T\xff\xff\xff\xff.", "byte count < 0"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "expected 9223372036854775807 bytes"),
        (b"\x80\x02" + python2_pickle(VALUE["data"])[2:].replace(b"M\x00\x0c", b"M\x01\x0c"), "cannot have its shape"),
        (re.sub(rb"(U\x01\|q.)NNN", rb"\1N)N", python2_pickle(VALUE["data"]), flags=re.S), "an array of records"),
    ],
)
def test_damage(data, message):
    with pytest.raises(Malformed, match=message) as caught:
        parse_pickle(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02" + b"]" * 60_000 + b".",
        b"\x80\x02" + b"(" * 60_000 + b".",
        b"\x80\x02" + b"}" + b"K\x01]s" * 20_000 + b".",
        # One text of a megabyte, encoded 1,000 times.
        b"\x80\x02]q\x00(X\x00\x00\x10\x00"
        + b"a" * (1 << 20)
        + b"q\x01c_codecs\nencode\nq\x02X\x06\x00\x00\x00latin1q\x03"
        + b"h\x02h\x01h\x03\x86R" * 1000
        + b"e.",
        # Each list has the one before it twice.
        b"\x80\x02]" + b"".join(b"q%c](h%ch%ce" % (n, n, n) for n in range(100)) + b".",
        # A list that contains itself.
        b"\x80\x02]q\x00h\x00a.",
    ],
    ids=["lists", "marks", "pairs", "encoded", "doubled", "itself"],
)
def test_memory_is_bounded(data, monkeypatch):
    monkeypatch.setattr(plain_pickle, "_MOST_OPCODES", 50_000)
    tracemalloc.start()
    try:
        try:
            parse_pickle(data)
        except Malformed as error:
            assert len(str(error)) < 400
        # So that half a million opcodes stay below 100 MB.
        assert tracemalloc.get_traced_memory()[1] < 50_000 * 200 + 6 * len(data)
    finally:
        tracemalloc.stop()
