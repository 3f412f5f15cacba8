"""Reading files that somebody else may have written or damaged: the one place that decides what is believed.

A file is taken for what it should be only after its kind, size, encoding, nesting and types have been looked at, before
anything is allocated for what it claims. Whatever is wrong becomes one FastvaeError.
"""

import dataclasses
import json
import math
import os
import reprlib
import stat
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from fastvae.errors import FastvaeError

_MIB = 1 << 20
# A config is about two kilobytes, a line of statistics about four hundred bytes.
_LARGEST_JSON = 16 * _MIB
_LONGEST_LINE = _MIB
# Two million lines of statistics.
_LARGEST_LINES = 1024 * _MIB
_LONGEST_TEXT = 65536
_LONGEST_MESSAGE = 300
_LARGEST_INTEGER = 2**63


class Malformed(ValueError):
    """What was read is not what it should be; the message says in which way, in one line of bounded length."""

    def __init__(self, message: str):
        line = " ".join(message.split())
        super().__init__(line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}...")


def read_text(path: Path, *, limit: int = _LARGEST_JSON) -> str:
    """A regular file of at most `limit` bytes as UTF-8 text.

    Raises:
        FastvaeError: it is missing, no regular file (a pipe would be waited for), larger, or not UTF-8.
    """
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FastvaeError(f"{path} cannot be read ({error.strerror or error})") from error
    if len(data) > limit:
        raise FastvaeError(f"{path} is larger than {limit} bytes, which nothing of its kind is: is it damaged?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FastvaeError(f"{path} is not text in UTF-8 (byte {error.start}): is it damaged?") from error


def open_regular(path: Path) -> typing.BinaryIO:
    """Opens a regular file to be read; does not wait for the writer of a pipe.

    Raises:
        OSError: it is missing, may not be read, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def parse_json(text: str | bytes) -> Any:
    """JSON as RFC 8259 has it: no NaN, no infinities.

    Raises:
        Malformed: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise Malformed("it is nested too deeply") from None
    except ValueError as error:
        raise Malformed(str(error)) from None


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        FastvaeError: the file cannot be read, or does not hold JSON.
    """
    try:
        return parse_json(read_text(path))
    except Malformed as error:
        raise FastvaeError(f"{path} is damaged or not JSON ({error})") from error


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file that has one a line; lines that hold something else are passed over.

    They come from a process that was killed or from somebody's editor, and the other lines are as good without them. A
    file that cannot be read has none.

    Raises:
        FastvaeError: the file is larger than any of its kind.
    """
    try:
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > _LARGEST_LINES:
                raise FastvaeError(f"{path} has {size} bytes, more than any of its kind: rename it to go on without")
            while line := file.readline(_LONGEST_LINE):
                try:
                    values = parse_json(line)
                except Malformed:
                    continue
                if isinstance(values, dict):
                    yield values
    except OSError:
        return


def conform(value: Any, hint: Any, name: str) -> Any:
    """A JSON value as the type that it should have.

    Args:
        value: of parsed JSON.
        hint: a dataclass, bool, int, float, str, None, Any, Literal, a union, tuple[X, ...], list[X], dict[str, X].
        name: what it is called in messages.

    Returns:
        The value; lists as tuples where these are asked for, integers as floats, objects as dataclasses. Fields that a
        dataclass does not have are ignored, since a later version may have written them; see `unknown_fields`.

    Raises:
        Malformed: it is of another type, not finite, a field is missing, or a text or an integer is beyond all reason.
        UsageError: a dataclass refuses a value as out of its range.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _conform_object(value, hint, name)
    if origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in arguments):
            return value
        raise Malformed(f"{name} must be one of {', '.join(map(str, arguments))}; got {_shown(value)}")
    if origin in (typing.Union, types.UnionType):
        return _conform_union(value, arguments, name)
    if origin in (tuple, list) and isinstance(value, list):
        return origin(conform(item, arguments[0], f"{name}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: conform(item, arguments[1], f"{name}.{key}") for key, item in value.items()}
    if _is_scalar(value, hint):
        return float(value) if hint is float else value
    raise Malformed(f"{name} must be {_called(hint)}; got {_shown(value)}")


def unknown_fields(value: Any, hint: type) -> list[str]:
    """Names in a JSON object that a dataclass does not know, sorted; those of a later version."""
    known = {field.name for field in dataclasses.fields(hint)}
    return sorted(set(value) - known) if isinstance(value, dict) else []


def _conform_object(value: Any, hint: type, name: str) -> Any:
    if not isinstance(value, dict):
        raise Malformed(f"{name} must be an object; got {_shown(value)}")
    hints = typing.get_type_hints(hint)
    given = {}
    for field in dataclasses.fields(hint):
        if field.name in value:
            given[field.name] = conform(value[field.name], hints[field.name], f"{name}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise Malformed(f"{name} lacks {field.name}")
    return hint(**given)


def _conform_union(value: Any, hints: tuple, name: str) -> Any:
    for hint in hints:
        try:
            return conform(value, hint, name)
        except Malformed as error:
            last = error
    raise Malformed(f"{name} must be {' or '.join(map(_called, hints))}; got {_shown(value)}") from last


def _is_scalar(value: Any, hint: Any) -> bool:
    if hint in (None, type(None)):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if hint is int:
        return isinstance(value, int) and abs(value) < _LARGEST_INTEGER
    if hint is float:
        return math.isfinite(value) if isinstance(value, float) else _is_scalar(value, int)
    return hint is str and isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _called(hint: Any) -> str:
    if hint in (None, type(None)):
        return "null"
    plain = {bool: "true or false", int: "an integer", float: "a finite number", str: "a text"}
    if hint in plain:
        return plain[hint]
    return {tuple: "a list", list: "a list", dict: "an object"}.get(typing.get_origin(hint), str(hint))


def _shown(value: Any) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_constant(name: str) -> Any:
    raise Malformed(f"it holds {name}")
