"""What is read from files is believed only after it has been looked at."""

import math
import os
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from fastvae.errors import FastvaeError
from fastvae.files.reading import Malformed, conform, parse_json, read_json, read_json_lines, read_text, unknown_fields


@dataclass(frozen=True)
class Inner:
    size: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner
    rate: float = 1.0
    kind: Literal["a", "b"] = "a"
    limit: int | None = None
    anything: Any = None


def test_a_dataclass_from_json():
    values = {"inner": {"size": 3, "names": ["x", "y"]}, "rate": 2, "kind": "b", "limit": None, "of_a_later_version": 1}
    found = conform(values, Outer, "config")
    assert found == Outer(Inner(3, ("x", "y")), 2.0, "b") and isinstance(found.rate, float)
    assert unknown_fields(values, Outer) == ["of_a_later_version"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "config must be an object"),
        ({}, "config lacks inner"),
        ({"inner": {"size": "3"}}, "config.inner.size must be an integer; got '3'"),
        ({"inner": {"size": True}}, "config.inner.size must be an integer"),
        ({"inner": {"size": 1.0}}, "config.inner.size must be an integer"),
        ({"inner": {"size": 10**30}}, "config.inner.size must be an integer"),
        ({"inner": {"size": 1, "names": "xy"}}, "config.inner.names must be a list"),
        ({"inner": {"size": 1, "names": ["x", 1]}}, r"config.inner.names\[1\] must be a string"),
        ({"inner": {"size": 1}, "rate": math.inf}, "config.rate must be a finite number"),
        ({"inner": {"size": 1}, "rate": 10**400}, "config.rate must be a finite number"),
        ({"inner": {"size": 1}, "kind": "c"}, "config.kind must be one of a, b"),
        ({"inner": {"size": 1}, "kind": ["a"]}, "config.kind must be one of a, b"),
        ({"inner": {"size": 1}, "limit": "x" * 10**6}, "config.limit must be an integer or null"),
    ],
)
def test_what_does_not_conform_is_named(values, words):
    with pytest.raises(Malformed, match=words) as error:
        conform(values, Outer, "config")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": NaN}', "[Infinity]", "[" * 100000 + "]" * 100000, '{"a":' * 50000, "1" * 5000, "\x00"]
)
def test_what_is_not_json(text):
    with pytest.raises(Malformed):
        parse_json(text)


def test_files_that_are_not_what_they_should_be(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b'"\xfc"')
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("missing", "pipe", "latin", "huge", "."):
        with pytest.raises(FastvaeError) as error:
            read_json(tmp_path / name)
        assert "\n" not in str(error.value)
    assert list(read_json_lines(tmp_path / "pipe")) == list(read_json_lines(tmp_path / "missing")) == []
    with pytest.raises(FastvaeError, match="larger than 3 bytes"):
        read_text(tmp_path / "huge", limit=3)


def test_a_file_of_lines_beyond_all_reason(tmp_path):
    with (tmp_path / "stats.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FastvaeError, match="1099511627776 bytes"):
        next(read_json_lines(tmp_path / "stats.jsonl"))


def test_lines_that_are_damaged_are_passed_over(tmp_path):
    path = tmp_path / "stats.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": \n[2]\n\xff\xfe\n' + b"[" * 5000 + b'\n{"step": 3}\n{"ste')
    assert list(read_json_lines(path)) == [{"step": 1}, {"step": 3}]
