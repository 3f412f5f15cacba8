"""The engine's C++, compiled by the machine's own compiler for its own processor, once."""

import ctypes
import hashlib
import logging
import os
import platform
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from fastvae.cache import cache_folder
from fastvae.errors import FastvaeError
from fastvae.machine import host_compiler

_SOURCES = ("engine.cpp", "convolution.h", "winograd.h", "to_image.h", "maps.h", "arena.h", "lanes.h", "pool.h")
# Clang says -mcpu where GCC says -march, but on x86.
_FOR_THIS_CPU = "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native"
_FLAGS = ("-O3", _FOR_THIS_CPU, "-std=c++17", "-shared", "-fPIC", "-pthread")
_logger = logging.getLogger("fastvae")


@cache
def library(extra_flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The compiled engine: from the cache, or compiled now and kept there.

    Args:
        extra_flags: for the compiler, as tests use them.

    Raises:
        FastvaeError: there is no compiler, or it failed.
    """
    cxx = host_compiler()
    if cxx is None:
        raise FastvaeError("there is no C++ compiler (g++ or clang++)")
    command = [cxx, *_FLAGS, *extra_flags]
    path = cache_folder() / "native" / f"engine-{_digest(command)}.so"
    if not path.exists():
        start = time.perf_counter()
        _compile(command, path)
        _logger.info("compiled the CPU engine with %s in %.1f s: %s", cxx, time.perf_counter() - start, path)
    return _declared(ctypes.CDLL(str(path)))


def _digest(command: list[str]) -> str:
    """Of all that the result depends on: sources, flags, and what the compiler says of itself and the processor."""
    macros = _run([*command, "-dM", "-E", "-x", "c++", os.devnull])
    sources = b"".join((Path(__file__).parent / name).read_bytes() for name in _SOURCES)
    return hashlib.sha256(sources + macros.encode() + repr(command).encode()).hexdigest()[:16]


def _compile(command: list[str], path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".engine-") as folder:
            made = Path(folder) / path.name
            _run([*command, "-o", str(made), str(Path(__file__).parent / "engine.cpp")])
            made.replace(path)  # whole, or not at all: other processes may be compiling, too
    except OSError as error:
        raise FastvaeError(
            f"the compiled engine cannot be kept in {path.parent} ({error.strerror or error})"
        ) from error


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        said = "\n".join(error.stderr.strip().splitlines()[:5])
        raise FastvaeError(f"{command[0]} could not compile the engine: {said}") from error


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    number, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    signatures = {
        "lanes": (number, []),
        "new": (pointer, [number] * 2),
        "delete": (None, [pointer]),
        "map": (number, [pointer, *[number] * 4]),
        "direct": (number, [pointer, *[number] * 11, real]),
        "filters": (None, [pointer, number, pointer, pointer, *[number] * 4]),
        "winograd": (number, [pointer, *[number] * 4, pointer, pointer, number, real]),
        "to_image": (number, [pointer, *[number] * 2, pointer, pointer]),
        "run": (
            None,
            [pointer, pointer, *[number] * 2, pointer, pointer, *[number] * 2, *[pointer] * 3, number, pointer],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, f"fastvae_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded
