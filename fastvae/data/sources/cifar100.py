"""Reads CIFAR-100 in its python or binary version."""

from pathlib import Path

from fastvae.data.sources.cifar_batches import read_batches
from fastvae.data.sources.cifar_files import archive_begins_with, is_archive
from fastvae.data.sources.cifar_set import Cifar
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import is_file, is_folder, shown

_CIFAR100 = Cifar(
    kind="cifar100",
    title="CIFAR-100",
    batches=("train", "test"),
    labels="fine_labels",
    label_bytes=2,
    class_count=100,
    class_files=("meta", "fine_label_names.txt"),
    places=("cifar-100-binary", "cifar-100-python", "cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
)


def is_cifar100(root: Path) -> bool:
    """Whether the folder or archive contains CIFAR-100."""
    place = _place(root)
    if is_archive(place):
        return "100" in place.name and archive_begins_with(place, _CIFAR100.files)
    return _is_complete(place)


def read_cifar100(root: Path) -> Source:
    """Reads CIFAR-100: `train`, `test` and `meta`, or `train.bin`, `test.bin` and `fine_label_names.txt`.

    There is no validation split, as in CIFAR-10. The 100 fine classes become one-hot attributes.

    Args:
        root: the folder, `cifar-100-python.tar.gz` or `cifar-100-binary.tar.gz` unopened, or a folder with one of them.

    Raises:
        FastvaeError: files are missing or damaged, or something other than CIFAR-100's arrays is in a pickle.
    """
    source = read_batches(_CIFAR100, root, _place(root))
    if source is None:
        raise FastvaeError(f"{shown(root)} does not contain CIFAR-100: expected train, test and meta, or the same .bin")
    return source


def _place(root: Path) -> Path:
    if _is_complete(root):
        return root
    return next((root / name for name in _CIFAR100.places if is_folder(root / name) or is_file(root / name)), root)


def _is_complete(folder: Path) -> bool:
    # "train" and "test" alone are files of anything.
    forms = (("train", "meta"), ("train.bin", "fine_label_names.txt"))
    return any(all(is_file(folder / name) for name in form) for form in forms)
