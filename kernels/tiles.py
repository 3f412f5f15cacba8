"""Tile sizes: a pure function of (op, shape class, dtype, compute capability).

`tiles.json` only holds what `python -m tools.tune` measured on a GPU; without an entry, the op's default is used. So a
first call never stops to tune, and two runs on the same kind of GPU launch the same kernels. An entry is null if ATen
was measured to be faster than the best tile. The environment variable FASTVAE_TILES names another file to use in its
place: `python -m bench all` measures with the table that it has just made.
"""

import json
import os
from functools import cache
from pathlib import Path

import torch

Tile = dict[str, int]  # the kernel's constexprs and launch options: BLOCK_M, num_warps, ...

# Two for each multiprocessor of today's largest GPUs.
ENOUGH_PROGRAMS = 264
PATH = Path(os.environ.get("FASTVAE_TILES") or Path(__file__).with_name("tiles.json"))


@cache
def _measured() -> dict[str, Tile | None]:
    return json.loads(PATH.read_text())


def key(op: str, shape_class: str, dtype: torch.dtype, capability: tuple[int, int]) -> str:
    """The name of an entry, e.g. "replicate_conv2d.forward u1 c64 o64 16x16 b64 bfloat16 sm_90"."""
    return f"{op} {shape_class} {str(dtype).removeprefix('torch.')} sm_{capability[0]}{capability[1]}"


def choose(op: str, shape_class: str, dtype: torch.dtype, capability: tuple[int, int], default: Tile) -> Tile | None:
    """The measured tile, `default` if there is no measurement, or None if ATen is faster."""
    return _measured().get(key(op, shape_class, dtype, capability), default)


def size_class(count: int) -> int:
    """The power of two at or above `count`: shapes of one class share their tile."""
    return 1 << max(count - 1, 0).bit_length()
