"""Damage for fuzz tests, from a seeded generator: to bytes as disks and transfers do it, to JSON as hostile writers."""

import copy
import math
from collections.abc import Callable
from random import Random
from typing import Any

_INTEGERS = (0, 1, -1, 2, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400)
_FLOATS = (0.5, -0.0, 1e-320, 1e300, math.nan, math.inf, -math.inf)
_TEXTS = ("", "0", "x" * 100_000, "a\nb", "\x00", "\ud800", "../../etc/passwd", "%s{}", "名\u202e")
_OTHERS = (None, True, False, [], {}, [[]], [None], {"": None}, [0] * 1000)
_BYTES = (b"\x00" * 64, b"\xff" * 64, b"\n" * 100, b"[" * 5000, b'{"a":' * 5000, b"NaN", b"\r", b",", b"9" * 5000, b"-")


def mutated_bytes(data: bytes, random: Random) -> bytes:
    """The data with one to three faults: bytes changed, cut off, taken out, put in, doubled, exchanged or added."""
    for _ in range(random.randint(1, 3)):
        data = random.choice(_BYTE_FAULTS)(data, random)
    return data


def mutated_json(value: Any, random: Random) -> Any:
    """A copy of a JSON value with one to three faults in it, at any depth.

    Values are replaced by others of any type and size, copied, dropped, doubled, wrapped; fields are renamed and added.
    It may hold what only Python's `json` writes: NaN, infinities, halves of surrogate pairs, integers of 400 digits.
    """
    value = copy.deepcopy(value)
    for _ in range(random.randint(1, 3)):
        holder = [value]  # so that the outermost value is in a place, too
        places = [(holder, 0), *_places(value)]
        container, key = random.choice(places)
        random.choice(_JSON_FAULTS)(container, key, random, [found[at] for found, at in places])
        value = holder[0] if holder else None
    return value


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(min(len(data), random.choice((1, 1, 4, 32)))):
        changed[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(changed)


def _truncate(data: bytes, random: Random) -> bytes:
    return data[: random.randint(0, len(data))]


def _take_out(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    return data[:start] + data[end:]


def _put_in(data: bytes, random: Random) -> bytes:
    at = random.randint(0, len(data))
    return data[:at] + random.choice((*_BYTES, random.randbytes(random.randint(1, 64)))) + data[at:]


def _double(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    return data[:end] + data[start:]


def _overwrite(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    return data[:start] + random.choice(_BYTES)[: end - start].ljust(end - start, b"\x00") + data[end:]


def _extend(data: bytes, random: Random) -> bytes:
    return data + random.choice((b"\x00", b"\n", data[:4096], random.randbytes(random.randint(1, 4096))))


_BYTE_FAULTS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip,
    _flip,
    _truncate,
    _take_out,
    _put_in,
    _double,
    _overwrite,
    _extend,
)


def _range(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice((1, 4, 16, 256, len(data))))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as its container and its key there."""
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    else:
        return []
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def _replace(container: Any, key: Any, random: Random, values: list) -> None:
    container[key] = copy.deepcopy(random.choice(random.choice((_INTEGERS, _FLOATS, _TEXTS, _OTHERS))))


def _nudge(container: Any, key: Any, random: Random, values: list) -> None:
    value = container[key]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        _replace(container, key, random, values)
    elif isinstance(value, str):
        at = random.randint(0, len(value))
        container[key] = value[:at] + random.choice(("", "x", "\x00", "\ud800", value)) + value[at + 1 :]
    else:
        # A text of the same digits is what some writers make of a number; 2.0 is what others make of 2.
        changes = [-value, value + 1, value - 1, value * 2, str(value)]
        container[key] = random.choice([*changes, float(value)] if abs(value) < 2**53 else changes)


def _drop(container: Any, key: Any, random: Random, values: list) -> None:
    del container[key]


def _copy_another(container: Any, key: Any, random: Random, values: list) -> None:
    container[key] = copy.deepcopy(random.choice(values))


def _wrap(container: Any, key: Any, random: Random, values: list) -> None:
    for _ in range(random.choice((1, 1, 2, 100))):
        container[key] = [container[key]] if random.random() < 0.5 else {"a": container[key]}


def _add_or_double(container: Any, key: Any, random: Random, values: list) -> None:
    value = container[key]
    if isinstance(value, dict):
        value[random.choice(("of_a_later_version", "", "\ud800"))] = copy.deepcopy(random.choice(values))
    elif isinstance(value, list):
        value.extend(copy.deepcopy(value) or [None])
    else:
        container[key] = [value, value]


def _rename(container: Any, key: Any, random: Random, values: list) -> None:
    if isinstance(container, dict):
        container[random.choice((f"{key}_", str(key).upper(), str(key)[:-1]))] = container.pop(key)
    else:
        container.insert(random.randint(0, len(container)), copy.deepcopy(container[key]))


_JSON_FAULTS = (_replace, _replace, _nudge, _nudge, _drop, _copy_another, _wrap, _add_or_double, _rename)
