"""Says in the log what a data set was taken for, what was used of it, and what was left out and why."""

import logging
from pathlib import Path

from fastvae.data.containers.zip_file import ZipPictures
from fastvae.data.packed import SPLITS
from fastvae.data.sources.labels import NOT_LABELS
from fastvae.data.sources.listing import HIDDEN, NOT_PICTURES, describe, named
from fastvae.data.sources.source import Source
from fastvae.files.places import shown

_TITLES = {
    "celeba": "CelebA",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "folder": "a plain folder of pictures",
    "parquet": "Parquet files of pictures",
    "webdataset": "a WebDataset",
}
_HARMLESS = {HIDDEN, NOT_PICTURES, NOT_LABELS}
_logger = logging.getLogger("fastvae")


def log_report(path: Path, source: Source) -> None:
    """Logs the report to "fastvae": a line each, as a warning where something may not be as intended."""
    _logger.info("%s", summary(path, source))
    for note in source.notes:
        _logger.info("  %s", note)
    if source.left_out:
        level = logging.INFO if source.left_out.keys() <= _HARMLESS else logging.WARNING
        _logger.log(level, "  %s", describe(source.left_out))
    for warning in source.warnings:
        _logger.warning("  %s", warning)


def summary(path: Path, source: Source) -> str:
    """The first line: kind, numbers of pictures and splits, attributes."""
    title = _TITLES[source.kind]
    if source.kind == "folder" and not source.has_files:
        title = f"pictures in a {'zip' if isinstance(source.images, ZipPictures) else 'tar'} file"
    form = f", {source.form}" if source.form else ""
    counts = ", ".join(f"{(source.splits == code).sum():,} {split}" for split, code in SPLITS.items())
    names = source.attribute_names
    what = "attributes" if source.kind in ("celeba", "parquet", "webdataset") else "classes"
    attributes = f"{len(names)} {what} ({named(names, len(names))})" if names else f"no {what}"
    return (
        f"{shown(path)}: read as {title}{form}: {len(source.names):,} pictures; {counts} "
        f"({shown(source.split_rule)}); {attributes}"
    )
