"""Tells the JPEGs that every decoder understands alike from those that only Pillow is trusted with."""

import os
from pathlib import Path

from fastvae.files.reading import open_regular

# All of a few batches of files are in memory at a time.
_LARGEST_FILE = 16 << 20


def read_if_small(path: Path) -> bytes | None:
    """The bytes of a regular file of at most 16 MiB; None for a larger one, which Pillow reads piece by piece.

    Raises:
        OSError: it is missing, may not be read, or is no regular file.
    """
    with open_regular(path) as file:
        # Its size is asked first: a reader that is given a limit makes room for all of it, in five times the time.
        return file.read() if os.fstat(file.fileno()).st_size <= _LARGEST_FILE else None


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a complete 8-bit JFIF file of three components, without EXIF and Adobe's marker.

    In such a file nothing is open to interpretation: no orientation, no CMYK, no colours but YCbCr. None for
    every other file. It takes 5 us.
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
