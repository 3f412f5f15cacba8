"""Reads a zip file of pictures, arranged as in a folder."""

from pathlib import Path

from fastvae.data.containers.archives import check_not_empty, open_archive
from fastvae.data.containers.container import Container
from fastvae.data.sources.folder import arranged
from fastvae.data.sources.source import Source


def read_zip(path: Path, pictures: Container | None = None) -> Source:
    """Lists a zip file of pictures. Names, splits and classes are those of `folder.read_folder` for its contents.

    Args:
        path: of the zip file.
        pictures: its contents, if it has been listed already.

    Raises:
        FastvaeError: see `open_archive`; and pictures outside the split folders.
    """
    pictures = open_archive(path) if pictures is None else pictures
    check_not_empty(pictures)
    return arranged("folder", path, pictures, pictures.names, pictures.left_out)
