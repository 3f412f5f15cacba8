"""Downloads data sets from the Hugging Face Hub: "hub:user/name", with "/subset" and "@revision" if needed."""

import glob
import hashlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fastvae.data.sources.shards import shard_split
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files.atomic_write import write_json
from fastvae.files.cache import cache_folder, kept_file
from fastvae.files.hugging_face import hub, why_not
from fastvae.files.places import resolved, shown
from fastvae.files.reading import Malformed, conform, read_json

_PREFIX = "hub:"
_FORM = re.compile(r"hub:(?P<repository>\w[\w.-]*/\w[\w.-]*)(/(?P<subset>[^@]+?)/?)?(@(?P<revision>.+))?")
# The Hub converts public data sets of other forms to Parquet here.
_CONVERTED = "refs/convert/parquet"
# A subset that needs no name: the library `datasets` uploads to the first, the Hub converts to the second.
_UNNAMED = ("data", "default")
_logger = logging.getLogger("fastvae")


def is_on_hub(data: str | os.PathLike[str]) -> bool:
    """Whether --data or SOURCE names a data set on the Hub."""
    return os.fspath(data).startswith(_PREFIX)


def place_of(data: str | os.PathLike[str]) -> Path:
    """What --data or SOURCE names: an absolute path, or "hub:..." as it was given.

    Raises:
        UsageError: it is neither.
    """
    if not is_on_hub(data):
        return resolved(data)
    _Dataset.parsed(os.fspath(data))
    return Path(data)


@dataclass(frozen=True)
class _Dataset:
    """A data set on the Hub.

    Attributes:
        repository: "user/name".
        subset: a folder in it, or None.
        revision: a branch, tag or commit, or None.
    """

    repository: str
    subset: str | None
    revision: str | None

    @classmethod
    def parsed(cls, name: str) -> Self:
        match = _FORM.fullmatch(name)
        if match is None:
            raise UsageError(
                f"{shown(name)} is no data set of the Hub: expected hub:user/name, hub:user/name/subset, or "
                "hub:user/name@revision"
            )
        return cls(match["repository"], match["subset"], match["revision"])


def download(name: str | os.PathLike[str]) -> Path:
    """The folder of a data set's Parquet files, or of its tar files if it has no Parquet; in the cache.

    What is there already is not downloaded again, and an interrupted download goes on where it ended. If the Hub cannot
    be reached, a data set that was downloaded before is used as it was then.

    Args:
        name: "hub:user/name". Without a revision, files are looked for in main and then in refs/convert/parquet.

    Raises:
        UsageError: another form of name, or a subset that does not exist.
        FastvaeError: huggingface_hub is not installed; the data set does not exist, is private or gated, has none of
            these files, or subsets of which one must be chosen; or the Hub cannot be reached.
    """
    name = os.fspath(name)
    dataset = _Dataset.parsed(name)
    record = f"hub-{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
    try:
        library = hub()
        commit, files = _listed(library.HfApi(), dataset)
        _logger.info("%s: %d files of commit %s", name, len(files), commit[:12])
        if any("/partial-" in file for file in files):
            _logger.warning("%s: the Hub has converted only a part of this data set to Parquet", name)
        snapshot = Path(
            library.snapshot_download(
                dataset.repository,
                repo_type="dataset",
                revision=commit,
                allow_patterns=[glob.escape(file) for file in files],
                cache_dir=cache_folder() / "hub",
            )
        )
        # Older versions of the library give the folder of an interrupted download if the Hub does not answer.
        if missing := [file for file in files if not (snapshot / file).is_file()]:
            raise FileNotFoundError(f"{len(missing)} of its {len(files)} files are missing")
    except FastvaeError:
        raise
    except Exception as error:
        why = why_not(error, dataset.revision)
        if (folder := _downloaded_before(record)) is not None:
            _logger.warning("%s: %s; using what was downloaded before, %s", name, shown(why), shown(folder))
            return folder
        raise FastvaeError(
            f"{name} cannot be downloaded: {shown(why)}. With a connection run the same command again; or copy the "
            "data set's Parquet files here and give their folder instead"
        ) from error
    folder = snapshot / _common_folder(files)
    write_json(
        cache_folder() / record, {"name": name, "folder": str(folder), "snapshot": str(snapshot), "files": files}
    )
    return folder


def _listed(api: Any, dataset: _Dataset) -> tuple[str, list[str]]:
    """The commit, and the files to download."""
    from huggingface_hub import errors

    found: dict[str, list[str]] = {}
    for revision in [dataset.revision] if dataset.revision else [None, _CONVERTED]:
        try:
            info = api.dataset_info(dataset.repository, revision=revision)
        except errors.RevisionNotFoundError:
            if revision != _CONVERTED:
                raise
            break  # not every data set is converted
        names = [file.rfilename for file in info.siblings or ()]
        found[revision or "main"] = names
        for suffix in (".parquet", ".tar"):
            if files := [name for name in names if name.endswith(suffix) and not name.startswith(".")]:
                return info.sha, _of_subset(dataset, files)
    listed = sorted(name for names in found.values() for name in names)
    raise FastvaeError(
        f"hub:{dataset.repository} has no .parquet and no .tar files (in {' and '.join(found)}); it has "
        f"{shown(', '.join(listed))[:200] or 'no files'}: download these, and give the folder"
    )


def _of_subset(dataset: _Dataset, files: list[str]) -> list[str]:
    """The files of the subset that is named, or of the only one."""
    subsets: dict[str, list[str]] = {}
    for file in sorted(files):
        subsets.setdefault(_subset_of(file), []).append(file)
    if dataset.subset is not None:
        if dataset.subset not in subsets:
            named = [subset for subset in subsets if subset]
            raise UsageError(
                f"hub:{dataset.repository} has no subset {dataset.subset!r}"
                + (suggest(dataset.subset, named) if named else ": it has no subsets")
            )
        return subsets[dataset.subset]
    unnamed = next((subset for subset in _UNNAMED if subset in subsets), None)
    if len(subsets) == 1 or unnamed is not None:
        return subsets[unnamed] if unnamed is not None else files
    names = [subset for subset in subsets if subset]
    beside = "; the files beside these folders can be had by downloading them" if "" in subsets else ""
    raise UsageError(
        f"hub:{dataset.repository} has the subsets {shown(', '.join(names))[:300]}: name one, as in "
        f"hub:{dataset.repository}/{names[-1]}{beside}"
    )


def _subset_of(file: str) -> str:
    """The folder of a subset, "" if there is none: folders of splits are no subsets."""
    top, slash, _ = file.partition("/")
    return top if slash and shard_split(Path(top)) is None else ""


def _common_folder(files: list[str]) -> str:
    return _subset_of(files[0]) if len({_subset_of(file) for file in files}) == 1 else ""


def _downloaded_before(record: str) -> Path | None:
    """The folder of a data set that was downloaded completely."""
    if (path := kept_file(record)) is None:
        return None
    try:
        values = conform(read_json(path), dict[str, Any], "record")
        files = [Path(values["snapshot"]) / file for file in conform(values["files"], list[str], "files")]
        folder = Path(conform(values["folder"], str, "folder"))
    except (Malformed, FastvaeError, KeyError):
        return None
    return folder if files and all(file.is_file() for file in files) else None
