"""PNGs written by hand: of bit depths and transparent colours that Pillow does not write."""

import io
import struct
import zlib

import numpy as np

_COLOUR_TYPES = {"grey": 0, "rgb": 2, "palette": 3, "grey+alpha": 4, "rgb+alpha": 6}


def png(values: np.ndarray, kind: str, depth: int, *, palette: bytes = b"", transparent: bytes = b"") -> io.BytesIO:
    """A PNG.

    Args:
        values: integers [H, W, C], as the file is to have them.
        kind: a key of `_COLOUR_TYPES`.
        depth: bits a value.
        palette: content of PLTE.
        transparent: content of tRNS.
    """
    height, width, _ = values.shape
    rows = values.reshape(height, -1)
    if depth == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :]
        lines = [np.packbits(row.reshape(-1)).tobytes() for row in bits]
    header = struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPES[kind], 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + line for line in lines))
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", transparent), (b"IDAT", data), (b"IEND", b"")]
    kept = [chunk for chunk in chunks if chunk[1] or chunk[0] == b"IEND"]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in kept))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
