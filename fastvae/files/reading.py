"""Reading files that may be damaged or come from somebody else.

A file is accepted only after its kind, size, encoding, nesting and types have been checked, before anything is
allocated for its contents. Any problem becomes one FastvaeError.
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
    """The contents are not as expected; the message is one line of bounded length."""

    def __init__(self, message: str):
        line = " ".join(message.split())
        super().__init__(line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}...")


def read_text(path: Path, *, limit: int = _LARGEST_JSON) -> str:
    """A regular file of at most `limit` bytes as UTF-8 text.

    Raises:
        FastvaeError: it is missing, not a regular file (reading a pipe would block), too large, or not UTF-8.
    """
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FastvaeError(f"{path} cannot be read ({error.strerror or error})") from error
    if len(data) > limit:
        raise FastvaeError(f"{path} is larger than {limit} bytes, the limit for its kind: is it damaged?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FastvaeError(f"{path} is not UTF-8 text (byte {error.start}): is it damaged?") from error


def open_regular(path: Path) -> typing.BinaryIO:
    """Opens a regular file for reading; does not block on a pipe.

    Raises:
        OSError: it is missing, not readable, or not a regular file.
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
    """Parses JSON as in RFC 8259: no NaN, no infinities.

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
    """The JSON objects of a file with one object a line; other lines are skipped.

    Such lines come from a killed process or an editor, and the rest is usable without them. A file that cannot be read
    yields nothing.

    Raises:
        FastvaeError: the file is larger than the limit for its kind.
    """
    try:
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > _LARGEST_LINES:
                raise FastvaeError(
                    f"{path} has {size} bytes, the limit is {_LARGEST_LINES}: rename it to continue without it"
                )
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
    """Converts a JSON value to the expected type.

    Args:
        value: parsed JSON.
        hint: a dataclass, bool, int, float, str, None, Any, Literal, a union, tuple[X, ...], list[X], dict[str, X].
        name: of the value, for messages.

    Returns:
        The value, with lists as tuples, integers as floats and objects as dataclasses where `hint` says so. Unknown
        fields are ignored, since a later version may have written them; see `unknown_fields`.

    Raises:
        Malformed: it has another type, is not finite, lacks a field, or contains an overlong text or integer.
        UsageError: a dataclass rejects a value as out of range.
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
    """Names in a JSON object that are not fields of the dataclass, sorted: fields of a later version."""
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
    plain = {bool: "true or false", int: "an integer", float: "a finite number", str: "a string"}
    if hint in plain:
        return plain[hint]
    return {tuple: "a list", list: "a list", dict: "an object"}.get(typing.get_origin(hint), str(hint))


def _shown(value: Any) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_constant(name: str) -> Any:
    raise Malformed(f"it contains {name}")
