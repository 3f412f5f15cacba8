"""The results as a human-readable table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastvae.evaluate.inception import FEATURES, Inception
from fastvae.evaluate.inception_score import SPLITS
from fastvae.evaluate.measure import FLOOR, Row
from fastvae.evaluate.protocol import Protocol
from fastvae.evaluate.reconstruction import SSIM_SIDE
from fastvae.files.atomic_write import write_json


def table(rows: Sequence[Row]) -> str:
    """A row for each run; missing values are dashes, and columns without any value are left out."""
    columns = {
        "Inception Score": [_score(r) for r in rows],
        "FID": [_number(r.fid, 2) for r in rows],
        "PSNR, dB": [_number(r.psnr_db, 2) for r in rows],
        "SSIM": [_number(r.ssim, 4) for r in rows],
        "L_rec": [_number(r.rec, 2) for r in rows],
        "FID of reconstructions": [_number(r.reconstruction_fid, 2) for r in rows],
    }
    columns = {head: cells for head, cells in columns.items() if set(cells) - {"-"}}
    first = max(len(r.name) for r in rows)
    widths = {head: max(len(head), *map(len, cells)) for head, cells in columns.items()}
    lines = ["  ".join([" " * first, *(f"{head:>{widths[head]}}" for head in columns)])]
    for i, row in enumerate(rows):
        lines.append("  ".join([f"{row.name:<{first}}", *(f"{columns[h][i]:>{widths[h]}}" for h in columns)]))
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _score(row: Row) -> str:
    return "-" if row.inception_score is None else f"{row.inception_score:.2f} +- {row.inception_score_std:.2f}"


def remarks(rows: Sequence[Row], plan: Protocol, inception: Inception | None) -> list[str]:
    """What a reader must know to read the table."""
    notes = []
    if inception is not None:
        few = f", the more so below {FEATURES:,}, the number of features" if plan.count < FEATURES else ""
        notes.append(
            f"FID of {plan.count:,} images is biased upward{few}. Compare it only with FIDs of as many images against "
            "the same real ones."
        )
        if plan.floor is not None:
            notes[-1] += " The row of real images shows where a perfect model would stand."
        if plan.floor is not None and len(plan.floor) != plan.count:
            notes.append(f"That row is of {len(plan.floor):,} images, not {plan.count:,}: the fewer, the more bias.")
        if not inception.known:
            notes.append(
                f"{inception.name} is not known to be FID's Inception network: compare these distances with others by "
                "the same file only."
            )
        if inception.why_no_score:
            notes.append(f"No Inception Score: {inception.why_no_score}.")
        else:
            notes.append(f"Inception Score: mean +- standard deviation over {SPLITS} parts of the images.")
    runs = [row for row in rows if row.name != FLOOR]
    if any(row.images and row.ssim is None for row in runs):
        notes.append(f"No SSIM: its window is {SSIM_SIDE} pixels wide, more than the images.")
    if any(row.images for row in runs):
        notes.append("PSNR, SSIM (Wang's Gaussian window) and L_rec are of held-out images, from z = mean, unrounded.")
    if without := [row.name for row in runs if not row.images]:
        notes.append(f"No reconstructions by {', '.join(without)}: a GAN has no encoder.")
    return notes


def write(path: Path, rows: Sequence[Row], **metadata: Any) -> None:
    """Writes the metadata and the rows as JSON.

    Raises:
        FastvaeError: it cannot be written.
    """
    write_json(path, metadata | {"rows": [asdict(row) for row in rows]})
