"""The measurements as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastvae.files.atomic_write import write_json
from fastvae.latency.measure import Cell, Latency
from fastvae.latency.start import Start


def cells_table(cells: Sequence[Cell]) -> str:
    """A row for each verb and batch; times in milliseconds."""
    columns = f"{'p50':>9} {'p95':>9} {'p99':>9} {'images/s':>10}"
    heads = (
        f"{'':<16} {'accelerated, ms':>29} {'':>10}   {'plain, ms':>29}",
        f"{'':<16} {columns}   {columns}   {'speed':>7} {'error':>8} {'calls':>6}",
    )
    return "\n".join([*heads, *map(_cell_line, cells)])


def _cell_line(cell: Cell) -> str:
    return (
        f"{cell.verb + ' ' + str(cell.batch):<16} {_columns(cell.accelerated)}   {_columns(cell.plain)}   "
        f"{cell.speedup:5.2f} x {cell.error:8.1e} {cell.accelerated.calls:>6}"
    )


def _columns(latency: Latency) -> str:
    return f"{latency.p50_ms:9.3f} {latency.p95_ms:9.3f} {latency.p99_ms:9.3f} {latency.images_per_s:10,.0f}"


def starts_table(starts: Sequence[Start]) -> str:
    """Seconds from the start of a process to its first result, and its peak memory."""
    lines = [
        f"{'first result, s':<25} {'batch':>5} {'import':>7} {'load':>7} {'accelerate':>10} {'call':>7} {'total':>7}"
        f"   {'peak memory':>11}"
    ]
    for s in starts:
        gpu = "" if s.peak_gpu_mib is None else f" and {s.peak_gpu_mib:,.0f} MiB of the GPU's"
        lines.append(
            f"{s.name:<25} {s.batch:>5} {s.import_s:7.2f} {s.load_s:7.2f} {s.accelerate_s:10.2f} {s.first_call_s:7.2f} "
            f"{s.total_s:7.2f}   {s.peak_mib:7,.0f} MiB{gpu}"
        )
    return "\n".join(lines)


def write(path: Path, *, cells: Sequence[Cell], starts: Sequence[Start], **metadata: Any) -> None:
    """Writes the metadata and all measurements as JSON.

    Raises:
        FastvaeError: the file cannot be written.
    """
    values = metadata | {
        "cells": [asdict(cell) | {"speedup": round(cell.speedup, 3)} for cell in cells],
        "starts": [asdict(start) for start in starts],
    }
    write_json(path, values)
