"""Compiles C++ sources of this package once, with the machine's compiler for its processor, and loads them."""

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import write_atomically
from fastvae.files.cache import cache_folder, temporary_cache

# Clang on Arm uses -mcpu for what is -march elsewhere.
_FOR_THIS_CPU = "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native"
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
# Compiling takes ten seconds to a minute; after this time the compiler is taken to hang.
_TIMEOUT_S = 300.0
_logger = logging.getLogger("fastvae")


@dataclass(frozen=True)
class Sources:
    """What a library is made of.

    Attributes:
        name: of the library, for messages and its file.
        entry: the .cpp file that is compiled.
        headers: the files that it includes, itself or through others.
        include: folders in which the compiler looks for them, besides the including file's.
        signatures: for each exported function its result's and its arguments' types, as ctypes has them.
    """

    name: str
    entry: Path
    headers: tuple[Path, ...]
    include: tuple[Path, ...]
    signatures: Callable[[], Mapping[str, tuple[type | None, list[type]]]]


class _CompilerFailed(FastvaeError):
    """The compiler failed."""


def host_compiler() -> str | None:
    """Path of the C++ compiler that torch.compile would use, too, or None."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def library(sources: Sources, extra_flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The compiled library, from the cache or compiled now and cached.

    A cached library has a digest of its bytes in its name and is only loaded if that matches; otherwise it is removed
    and compiled again. If the cache cannot be written, or others can write it, or nothing in it may be executed, a
    private folder in the system's temporary folder is used.

    Args:
        sources: of the library.
        extra_flags: compiler flags, for tests.

    Raises:
        FastvaeError: there is no compiler, it failed or timed out, or the library can be loaded from neither folder.
            Later calls raise the same without trying again.
    """
    loaded = _loaded(sources, extra_flags)
    if isinstance(loaded, str):
        raise FastvaeError(loaded)
    return loaded


@cache
def _loaded(sources: Sources, extra_flags: tuple[str, ...]) -> ctypes.CDLL | str:
    """The library, or an error message."""
    cxx = host_compiler()
    if cxx is None:
        return "there is no C++ compiler (g++ or clang++)"
    refusals = []
    includes = [f"-I{folder}" for folder in sources.include]
    # Tried without it too: a compiler may not know the processor, or its assembler the processor's instructions.
    for for_this_cpu in ((_FOR_THIS_CPU,), ()):
        try:
            return _kept_or_compiled(sources, [cxx, *_FLAGS, *for_this_cpu, *extra_flags, *includes])
        except _CompilerFailed as error:
            refusals.append(str(error))
        except FastvaeError as error:
            return str(error)
    return refusals[0]


def _kept_or_compiled(sources: Sources, command: list[str]) -> ctypes.CDLL:
    name, key, code, obstacles = sources.name, _digest(sources, command), b"", []
    for place in (cache_folder, temporary_cache):
        try:
            folder = place() / "native"
        except FastvaeError as error:
            obstacles.append(str(error))
            continue
        start = time.perf_counter()
        path = _kept(folder, f"{name}-{key}")
        is_new = path is None
        if path is None:
            if (obstacle := _obstacle_to_keeping(folder)) is not None:
                obstacles.append(obstacle)
                continue
            code = code or _compiled(sources, command)
            path = folder / f"{name}-{key}-{_digest_of(code)}.so"
        try:
            if is_new:
                write_atomically(path, code)
                if not _is_own(path):  # by the umask of this process
                    path.chmod(0o755)
            opened = _opened(sources, path)
        except (OSError, FastvaeError) as error:
            obstacles.append(str(error))
            continue
        if is_new:
            seconds = time.perf_counter() - start
            _logger.info("compiled the CPU %s with %s in %.1f s: %s", name, command[0], seconds, path)
        return opened
    raise FastvaeError(f"the compiled {name} cannot be loaded ({'; '.join(obstacles)})")


def _obstacle_to_keeping(folder: Path) -> str | None:
    """Why nothing should be kept in a folder, which is made; else each process would compile into it again."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return None if _is_own(folder) else f"{folder} can be written by others"
    except OSError as error:
        return str(error)


def _kept(folder: Path, prefix: str) -> Path | None:
    """The path of a cached library that is intact; damaged ones are removed."""
    for path in sorted(folder.glob(f"{prefix}-*.so")):
        with contextlib.suppress(OSError):
            if not (_is_own(path) and _is_own(folder)):
                continue
            if path.stem.rpartition("-")[2] == _digest_of(path.read_bytes()):
                return path
            path.unlink()
    return None


def _is_own(path: Path) -> bool:
    """Whether only this user or the administrator can have written it."""
    if not hasattr(os, "geteuid"):
        return True
    state = path.stat()
    return state.st_uid in (0, os.geteuid()) and not state.st_mode & 0o002


def _opened(sources: Sources, path: Path) -> ctypes.CDLL:
    try:
        loaded = ctypes.CDLL(str(path))
        for name, (result, arguments) in sources.signatures().items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise OSError(f"{path} is not the {sources.name}: {error}") from error
    return loaded


def _digest(sources: Sources, command: list[str]) -> str:
    """Digest of all that the library depends on: sources, flags, the compiler's macros (its version, the processor)."""
    macros = _run(sources.name, [*command, "-dM", "-E", "-x", "c++", os.devnull])
    files = b"".join(path.read_bytes() for path in (sources.entry, *sources.headers))
    # What the headers hold counts, not where they lie: a checkout that is moved, or copied, has the same library.
    flags = [word for word in command if not word.startswith("-I")]
    return _digest_of(files + macros.encode() + repr(flags).encode())


def _digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _compiled(sources: Sources, command: list[str]) -> bytes:
    """The bytes of the shared library."""
    try:
        with tempfile.TemporaryDirectory(prefix=f"fastvae-{sources.name}-") as folder:
            made = Path(folder) / "made.so"
            # The compiler's temporary files are removed with the folder, even if it is killed.
            _run(sources.name, [*command, "-o", str(made), str(sources.entry)], {"TMPDIR": folder})
            return made.read_bytes()
    except OSError as error:
        raise FastvaeError(f"{command[0]} did not produce the {sources.name} ({error})") from error


def _run(name: str, command: list[str], environment: Mapping[str, str] | None = None) -> str:
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
                raise FastvaeError(f"{command[0]} did not compile the {name} within {_TIMEOUT_S:g} s") from error
            raise
    if process.returncode:
        lines = stderr.strip().splitlines() or [f"status {process.returncode}"]
        message = next((line for line in lines if "error" in line), lines[0])
        raise _CompilerFailed(f"{command[0]} could not compile the {name}: {message.strip()}")
    return stdout


def _kill(process: subprocess.Popen) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
