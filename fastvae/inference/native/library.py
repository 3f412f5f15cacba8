"""Compiles the C++ engine once, with the machine's compiler for its processor, and loads it."""

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import write_atomically
from fastvae.files.cache import cache_folder, temporary_cache
from fastvae.machine import host_compiler

_HEADERS = ("products.h", "convolution.h", "winograd.h", "to_image.h", "maps.h", "arena.h", "lanes.h", "pool.h")
_SOURCES = ("engine.cpp", *_HEADERS)
# Clang on Arm uses -mcpu for what is -march elsewhere.
_FOR_THIS_CPU = "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native"
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
# Compiling takes ten seconds to a minute; after this time the compiler is taken to hang.
_TIMEOUT_S = 300.0
_logger = logging.getLogger("fastvae")


class _CompilerFailed(FastvaeError):
    """The compiler failed."""


def library(extra_flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The compiled engine, from the cache or compiled now and cached.

    A cached engine has a digest of its bytes in its name and is only loaded if that matches; otherwise it is removed
    and compiled again. If the cache cannot be written, or nothing in it may be executed, a private folder in the
    system's temporary folder is used.

    Args:
        extra_flags: compiler flags, for tests.

    Raises:
        FastvaeError: there is no compiler, it failed or timed out, or the engine can be loaded from neither folder.
            Later calls raise the same without trying again.
    """
    loaded = _loaded(extra_flags)
    if isinstance(loaded, str):
        raise FastvaeError(loaded)
    return loaded


@cache
def _loaded(extra_flags: tuple[str, ...]) -> ctypes.CDLL | str:
    """The engine, or an error message."""
    cxx = host_compiler()
    if cxx is None:
        return "there is no C++ compiler (g++ or clang++)"
    refusals = []
    # Tried without it too: a compiler may not know the processor, or its assembler the processor's instructions.
    for for_this_cpu in ((_FOR_THIS_CPU,), ()):
        try:
            return _kept_or_compiled([cxx, *_FLAGS, *for_this_cpu, *extra_flags])
        except _CompilerFailed as error:
            refusals.append(str(error))
        except FastvaeError as error:
            return str(error)
    return refusals[0]


def _kept_or_compiled(command: list[str]) -> ctypes.CDLL:
    key, code, obstacles = _digest(command), b"", []
    for place in (cache_folder, temporary_cache):
        try:
            folder = place() / "native"
        except FastvaeError as error:
            obstacles.append(str(error))
            continue
        start = time.perf_counter()
        path = _kept(folder, key)
        is_new = path is None
        if path is None:
            code = code or _compiled(command)
            path = folder / f"engine-{key}-{_digest_of(code)}.so"
        try:
            if is_new:
                write_atomically(path, code)
            opened = _opened(path)
        except (OSError, FastvaeError) as error:
            obstacles.append(str(error))
            continue
        if is_new:
            _logger.info("compiled the CPU engine with %s in %.1f s: %s", command[0], time.perf_counter() - start, path)
        return opened
    raise FastvaeError(f"the compiled engine cannot be loaded ({'; '.join(obstacles)})")


def _kept(folder: Path, key: str) -> Path | None:
    """The path of a cached engine that is intact; damaged ones are removed."""
    for path in sorted(folder.glob(f"engine-{key}-*.so")):
        with contextlib.suppress(OSError):
            if not _may_be_run(path):
                continue
            if path.stem.rpartition("-")[2] == _digest_of(path.read_bytes()):
                return path
            path.unlink()
    return None


def _may_be_run(path: Path) -> bool:
    """Whether only this user or the administrator can have written it."""
    if not hasattr(os, "geteuid"):
        return True
    states = (path.stat(), path.parent.stat())
    return all(state.st_uid in (0, os.geteuid()) and not state.st_mode & 0o002 for state in states)


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return _declared(ctypes.CDLL(str(path)))
    except AttributeError as error:
        raise OSError(f"{path} is not the engine: {error}") from error


def _digest(command: list[str]) -> str:
    """Digest of all that the engine depends on: sources, flags, the compiler's macros (its version, the processor)."""
    macros = _run([*command, "-dM", "-E", "-x", "c++", os.devnull])
    sources = b"".join((Path(__file__).parent / name).read_bytes() for name in _SOURCES)
    return _digest_of(sources + macros.encode() + repr(command).encode())


def _digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _compiled(command: list[str]) -> bytes:
    """The bytes of the shared library."""
    try:
        with tempfile.TemporaryDirectory(prefix="fastvae-engine-") as folder:
            made = Path(folder) / "engine.so"
            # The compiler's temporary files are removed with the folder, even if it is killed.
            _run([*command, "-o", str(made), str(Path(__file__).parent / "engine.cpp")], {"TMPDIR": folder})
            return made.read_bytes()
    except OSError as error:
        raise FastvaeError(f"{command[0]} did not produce an engine ({error})") from error


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Runs a command, with extra environment variables, and returns its standard output.

    Raises:
        FastvaeError: it cannot be started or times out.
        _CompilerFailed: it fails.
    """
    try:
        # In a process group of its own: a compiler starts others, which keep its output open and would outlive it.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise FastvaeError(f"{command[0]} cannot be started ({error.strerror or error})") from error
    with process:
        try:
            stdout, stderr = process.communicate(timeout=_TIMEOUT_S)
        except BaseException as error:
            _kill(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise FastvaeError(f"{command[0]} did not compile the engine within {_TIMEOUT_S:g} s") from error
            raise
    if process.returncode:
        lines = stderr.strip().splitlines() or [f"status {process.returncode}"]
        message = next((line for line in lines if "error" in line), lines[0])
        raise _CompilerFailed(f"{command[0]} could not compile the engine: {message.strip()}")
    return stdout


def _kill(process: subprocess.Popen) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


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
