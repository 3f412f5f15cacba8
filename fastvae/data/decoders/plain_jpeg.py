"""Recognises JPEGs that all decoders decode alike; Pillow decodes all others."""

import os
from pathlib import Path

from fastvae.files.reading import open_regular

# A few batches of complete files are in memory at a time.
_LARGEST_FILE = 16 << 20


def read_if_small(path: Path) -> bytes | None:
    """The bytes of a regular file of at most 16 MiB; None for a larger one, which Pillow reads in parts.

    Raises:
        OSError: it is missing, not readable, or not a regular file.
    """
    with open_regular(path) as file:
        # The size is checked first: read(limit) would allocate the complete limit, in five times the time.
        return file.read() if os.fstat(file.fileno()).st_size <= _LARGEST_FILE else None


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a complete 8-bit JFIF file with three components, without EXIF and Adobe markers.

    Such a file is unambiguous: no orientation, no CMYK, only YCbCr. None for every other file. Takes 5 us.
    """
    if not data.startswith(b"\xff\xd8\xff\xe0") or not data.endswith(b"\xff\xd9"):
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xE1, 0xEE):  # APP1 (EXIF), APP14 (Adobe)
            return None
        if marker in (0xC0, 0xC1, 0xC2):  # start of frame: baseline, extended, progressive
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            plain = data[at + 4] == 8 and data[at + 9] == 3 and width and height
            return (width, height) if plain else None
        at += 2 + length
    return None
