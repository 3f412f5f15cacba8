"""The header of a packed file, checked before anything is mapped or allocated."""

import itertools
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import Malformed, conform, parse_json

MAGIC = b"FASTVAE\x00"
VERSION = 1
HEADER_BYTES = 65536
PREAMBLE_BYTES = len(MAGIC) + 8
_ADVICE = "write one with `fastvae prepare`"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Block:
    """The position of a uint8 array in the file.

    Attributes:
        offset: of its first byte, in bytes.
        shape: 1 or more a dimension, C order.
        sha256: of its bytes, 64 hexadecimal digits.
    """

    offset: int
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Blocks:
    images: Block
    splits: Block
    attributes: Block | None = None
    names: Block | None = None


@dataclass(frozen=True)
class _Fields:
    blocks: _Blocks
    attribute_names: tuple[str, ...]
    file_bytes: int


class Header(NamedTuple):
    """A header that is consistent with its file.

    Attributes:
        fields: the complete JSON object.
        blocks: the blocks known to this version, by name; they lie inside the file and do not overlap.
        attribute_names: one for each column of the attributes.
        unknown_blocks: names of blocks written by a later version.
    """

    fields: dict[str, Any]
    blocks: dict[str, Block]
    attribute_names: tuple[str, ...]
    unknown_blocks: list[str]


def read_header(file: BinaryIO, path: Path) -> Header:
    """Reads and checks the header.

    Args:
        file: positioned at its beginning.
        path: for messages.

    Raises:
        FastvaeError: the file has another kind or version, a damaged header, or another length than the header says.
        OSError: it cannot be read.
    """
    start = file.read(HEADER_BYTES)
    size = os.fstat(file.fileno()).st_size
    if not start.startswith(MAGIC):
        raise FastvaeError(
            f"{shown(path)} is not a packed file: it begins with {start[:8]!r}; {_ADVICE}, or give "
            "the folder that holds the pictures"
        )
    version = int.from_bytes(start[8:12], "little")
    if version != VERSION:
        raise FastvaeError(f"{shown(path)} has format version {version}; this fastvae reads {VERSION}; {_ADVICE}")
    length = int.from_bytes(start[12:16], "little")
    try:
        if length > len(start) - PREAMBLE_BYTES:
            raise Malformed(f"it should have {length} bytes")
        fields = parse_json(start[PREAMBLE_BYTES : PREAMBLE_BYTES + length])
        known = conform(fields, _Fields, "header")
    except Malformed as error:
        raise FastvaeError(
            f"{shown(path)}: the header is damaged or cut off ({shown(str(error))}); {_ADVICE}"
        ) from None
    if size != known.file_bytes:
        raise FastvaeError(f"{shown(path)} is truncated or damaged: {size} bytes of {known.file_bytes}; copy it again")
    blocks = {name: block for name, block in vars(known.blocks).items() if block is not None}
    if reason := _contradiction(blocks, known.attribute_names, size):
        raise FastvaeError(f"{shown(path)}: the header is damaged ({reason}); {_ADVICE}")
    unknown = sorted(fields["blocks"].keys() - vars(known.blocks).keys())
    return Header(fields, blocks, tuple(map(shown, known.attribute_names)), unknown)


def _contradiction(blocks: dict[str, Block], attribute_names: tuple[str, ...], size: int) -> str | None:
    """An inconsistency in the header, or None."""
    for name, block in blocks.items():
        if not block.shape or min(block.shape) < 1:
            return f"the shape of {name} is {list(block.shape)[:9]}"
        if not _SHA256.fullmatch(block.sha256):
            return f"the checksum of {name} is not a SHA-256"
        if block.offset < HEADER_BYTES or block.offset + block.size > size:
            return f"{name} is outside the file"
    placed = sorted(blocks.items(), key=lambda item: item[1].offset)
    for (name, block), (following, after) in itertools.pairwise(placed):
        if block.offset + block.size > after.offset:
            return f"{name} and {following} overlap"
    images = blocks["images"].shape
    if len(images) != 4 or images[3] != 3:
        return f"images must be [N, H, W, 3]; got {list(images)[:9]}"
    expected = {"splits": (images[0],)}
    if attribute_names or "attributes" in blocks:
        expected["attributes"] = (images[0], len(attribute_names))
    for name, shape in expected.items():
        if name not in blocks or blocks[name].shape != shape:
            return f"{name} must be {list(shape)}, for {images[0]} images"
    if "names" in blocks and len(blocks["names"].shape) != 1:
        return "names must be one-dimensional"
    return None
