"""The file of latent vectors: safetensors, written part by part, so that memory use does not depend on its size.

    indices         int64 [M], ascending: positions in the data set
    means           float32 [M, latent], of q(z|x)
    log_variances   float32 [M, latent]; only with --log-variances
    splits          uint8 [M], 0 train, 1 validation, 2 test
    names           uint8: the images' names, UTF-8 (or as they are in the file system), each ended by a zero byte

The metadata are the request (`request.Request`) and where everything came from.
"""

import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastvae.encode.parts import Parts
from fastvae.files.atomic_write import atomic_file

_ALIGNMENT = 8


class _Tensor(NamedTuple):
    """A tensor of the file; `pieces` gives its values in order, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    pieces: Callable[[], Iterable[np.ndarray]]


def write(
    path: Path, parts: Parts, *, latent: int, names: list[str], splits: np.ndarray, metadata: dict[str, str]
) -> None:
    """Puts all parts together.

    Args:
        path: the file.
        parts: complete.
        latent: dimensions of z.
        names: of all images of the data set.
        splits: of all images of the data set.
        metadata: of the file; the request is in it.

    Raises:
        FastvaeError: it cannot be written; no incomplete file is left.
    """
    indices = parts.indices()
    count = len(indices)
    text = "".join(f"{names[index]}\x00" for index in indices).encode("utf-8", "surrogateescape")
    kept = ("means", "log_variances") if metadata["log_variances"] == "yes" else ("means",)

    def floats(name: str) -> _Tensor:
        return _Tensor("F32", (count, latent), 4 * count * latent, lambda: (r.astype("<f4") for r in parts.rows(name)))

    # As safetensors sorts them: by size of the elements, so that all are aligned.
    tensors = {
        "indices": _Tensor("I64", (count,), 8 * count, lambda: [indices.astype("<i8")]),
        **{name: floats(name) for name in kept},
        "names": _Tensor("U8", (len(text),), len(text), lambda: [np.frombuffer(text, np.uint8)]),
        "splits": _Tensor("U8", (count,), count, lambda: [splits[indices]]),
    }
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(_header(tensors, metadata))
        for tensor in tensors.values():
            for piece in tensor.pieces():
                file.write(np.ascontiguousarray(piece))


def _header(tensors: dict[str, _Tensor], metadata: dict[str, str]) -> bytes:
    """Length and JSON text, padded with spaces, as in safetensors' specification."""
    described, start = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        described[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (start, start + tensor.bytes)}
        start += tensor.bytes
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
