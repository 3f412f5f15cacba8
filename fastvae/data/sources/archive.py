"""Reads a zip file of pictures, arranged as in a folder."""

from pathlib import Path

from fastvae.data.containers.archives import open_archive
from fastvae.data.sources.folder import arranged
from fastvae.data.sources.source import Source


def read_zip(path: Path) -> Source:
    """Lists a zip file of pictures. Names, splits and classes are those of `folder.read_folder` for its contents.

    Raises:
        FastvaeError: see `open_archive`; and pictures outside the split folders.
    """
    pictures = open_archive(path)
    return arranged("folder", path, pictures, pictures.names, pictures.left_out)
