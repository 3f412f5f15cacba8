"""Reading tensor files from untrusted sources: runs no code and does not block on a pipe."""

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.files.reading import Malformed, open_regular

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save as to_bytes
except ModuleNotFoundError:  # a bare machine on which `python -m bench all` measures, and reads and saves no weights
    SafetensorError = FastvaeError

    def _missing(*arguments, **options):
        raise FastvaeError("weights are read and saved by safetensors, which is not installed: pip install safetensors")

    safe_open = to_bytes = _missing

# A complete VGG-19 has 575 MB in float32.
_LARGEST_BYTES = 4 << 30


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Opens a file with `safetensors.safe_open`.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        safetensors.SafetensorError: it is damaged.
    """
    # Opened here first: safetensors would block on a pipe, and cannot open names that are not UTF-8.
    with open_regular(path) as opened:
        name = os.fspath(path)
        if name.encode("utf-8", "ignore") != os.fsencode(path):
            name = f"/dev/fd/{opened.fileno()}"
        with safe_open(name, framework="pt") as file:
            yield file


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors, by name, of a state dict that `torch.save` wrote, directly or under "state_dict". Runs no code.

    Raises:
        Malformed: it contains something else, or tensors with more elements than the file stores.
        Exception: whatever PyTorch raises for a file that is damaged or contains code.
    """
    with open_regular(path) as file:
        check_size(os.fstat(file.fileno()).st_size)
        if zipfile.is_zipfile(file):
            check_unpacked(file)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise Malformed(f"it must contain a state dict (name -> tensor); got {type(content).__name__}")
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        _check_dense(name, tensor)
    return tensors


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that contains NaN or infinity, or None."""
    return next((k for k, v in tensors.items() if v.is_floating_point() and not torch.isfinite(v).all()), None)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors' names, shapes and values, independent of the file format; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(f"{key} {list(tensors[key].shape)} ".encode())
        digest.update(tensors[key].contiguous().numpy())
    return digest.hexdigest()


def check_size(size: int) -> None:
    """Raises Malformed if a file, or its unpacked contents, exceeds the limit for weights."""
    if size > _LARGEST_BYTES:
        raise Malformed(f"it has {size:,} bytes, and the limit for weights is {_LARGEST_BYTES:,}")


def check_unpacked(file: Any) -> None:
    """`check_size` of the unpacked contents of a zip archive."""
    with zipfile.ZipFile(file) as archive:
        check_size(sum(entry.file_size for entry in archive.infolist()))


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise Malformed(f"{name[:100]} is not a dense tensor")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise Malformed(f"{name[:100]} claims {tensor.numel():,} elements, more than the file stores")
