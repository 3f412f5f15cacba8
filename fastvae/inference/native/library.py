"""The compiled engine."""

import ctypes
from pathlib import Path

from fastvae import native_library
from fastvae.kernels import native as shared
from fastvae.native_library import Sources

_HERE, _SHARED = Path(__file__).parent, Path(shared.__file__).parent
_HEADERS = (
    *(_HERE / name for name in ("convolution.h", "winograd.h", "to_image.h", "maps.h", "arena.h", "pool.h")),
    *(_SHARED / name for name in ("products.h", "transforms.h", "lanes.h")),
)


def library(extra_flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The engine, compiled at the first call on a machine.

    Args:
        extra_flags: compiler flags, for tests.

    Raises:
        FastvaeError: see `fastvae.native_library.library`.
    """
    return native_library.library(SOURCES, extra_flags)


def _signatures() -> dict[str, tuple[type | None, list[type]]]:
    number, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    return {
        "fastvae_lanes": (number, []),
        "fastvae_new": (pointer, [number] * 2),
        "fastvae_delete": (None, [pointer]),
        "fastvae_map": (number, [pointer, *[number] * 4]),
        "fastvae_direct": (number, [pointer, *[number] * 11, real]),
        "fastvae_filters": (number, [pointer, number, pointer, pointer, *[number] * 4]),
        "fastvae_winograd": (number, [pointer, *[number] * 4, pointer, pointer, number, real]),
        "fastvae_to_image": (number, [pointer, *[number] * 2, pointer, pointer]),
        "fastvae_run": (
            number,
            [pointer, pointer, *[number] * 2, pointer, pointer, *[number] * 2, *[pointer] * 3, number, pointer],
        ),
    }


SOURCES = Sources("engine", _HERE / "engine.cpp", _HEADERS, (_SHARED,), _signatures)
