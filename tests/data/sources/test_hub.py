"""Data sets of the Hub, with huggingface_hub's calls replaced: what is asked for, what is read, what is said."""

import errno
import fnmatch
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fastvae.cli import main
from fastvae.cli.targets import places
from fastvae.data.dataset import open_images
from fastvae.data.packed import PackedImages
from fastvae.data.prepare import prepare
from fastvae.data.sources import hub
from fastvae.data.training_set import open_training_set
from fastvae.errors import FastvaeError, UsageError
from fastvae.recipes import RECIPES
from fastvae.train.build import resolve
from tests.data.packs import CLASS_LABEL, named_bytes, samples, write_members, write_parquet
from tests.data.pictures import save_photos

huggingface_hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("pyarrow")
from huggingface_hub import HfApi, errors  # noqa: E402


class Hub:
    """A repository you/faces with revisions in folders; `snapshot_download` copies the files that match.

    Attributes:
        revisions: folder by revision; "main" is what None means.
        asked: the options of each download.
        error: raised by every call if it is not None.
        interrupted_after: how many files a download brings; None for all.
    """

    def __init__(self, folder):
        self.folder, self.revisions, self.asked, self.error = folder, {}, [], None
        self.interrupted_after: int | None = None

    def add(self, revision="main"):
        folder = self.revisions[revision] = self.folder / "remote" / revision.replace("/", "-")
        folder.mkdir(parents=True)
        return folder

    def dataset_info(self, repo_id, *, revision=None):
        if self.error is not None:
            raise self.error
        if repo_id != "you/faces" or (revision or "main") not in self.revisions:
            raise _bare(errors.RevisionNotFoundError if repo_id == "you/faces" else errors.RepositoryNotFoundError)
        folder = self.revisions[revision or "main"]
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        siblings = [SimpleNamespace(rfilename=name) for name in names]
        return SimpleNamespace(sha=f"commit-{revision or 'main'}".replace("/", "-"), siblings=siblings)

    def snapshot_download(self, repo_id, *, repo_type, revision, allow_patterns, cache_dir):
        assert (repo_id, repo_type) == ("you/faces", "dataset")
        self.asked.append((revision, allow_patterns))
        allow_patterns = allow_patterns[: self.interrupted_after]
        remote = self.folder / "remote" / revision.removeprefix("commit-")
        snapshot = cache_dir / "datasets--you--faces" / "snapshots" / revision
        for path in remote.rglob("*"):
            name = path.relative_to(remote)
            if path.is_file() and any(fnmatch.fnmatch(name.as_posix(), pattern) for pattern in allow_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, snapshot / name)
        return str(snapshot)


def _bare(kind):
    """Without the answer of a server, whose class differs between versions."""
    error = kind.__new__(kind)
    Exception.__init__(error, "refused")
    return error


@pytest.fixture
def remote(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))
    made = Hub(tmp_path)
    monkeypatch.setattr(HfApi, "dataset_info", lambda self, *args, **options: made.dataset_info(*args, **options))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    return made


@pytest.fixture
def photos(tmp_path):
    save_photos(tmp_path / "photos", [f"{number:02}.jpg" for number in range(10)])
    return tmp_path / "photos"


def add_shards(folder, photos, top="data"):
    images, options = named_bytes(photos), {"features": {"label": CLASS_LABEL}}
    write_parquet(folder / top / "train-00000-of-00001.parquet", images[:6], {"label": [0, 1] * 3}, **options)
    write_parquet(folder / top / "test-00000-of-00001.parquet", images[6:], {"label": [0, 1] * 2}, **options)


def test_a_part_of_the_files_is_not_taken_for_all_of_them(remote, photos):
    add_shards(remote.add(), photos)
    remote.interrupted_after = 1
    with pytest.raises(
        FastvaeError, match=r"hub:you/faces cannot be downloaded: .*1 of its 2 files are missing.*the same command"
    ):
        hub.download("hub:you/faces")
    remote.interrupted_after = None
    assert len(list(hub.download("hub:you/faces").rglob("*.parquet"))) == 2


def test_prepare_downloads_and_prepares(remote, photos, tmp_path, capsys):
    folder = remote.add()
    add_shards(folder, photos)
    (folder / "README.md").write_text("a card")
    assert main(["prepare", "hub:you/faces", str(tmp_path / "a.fvae"), "--image-size", "16"]) == 0
    said = capsys.readouterr().err
    assert "hub:you/faces: read as Parquet files of pictures: 10 pictures; 6 train, 0 validation, 4 test" in said
    expected = prepare(photos, tmp_path / "b.fvae", image_size=16, progress=False)
    packed = PackedImages.open(tmp_path / "a.fvae")
    assert np.array_equal(packed.images, expected.images) and packed.names == expected.names
    assert packed.header["source"] == "hub:you/faces" and packed.attribute_names == ("cat", "dog")
    files = ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]
    assert remote.asked == [("commit-main", files)]


def test_data_of_every_command(remote, photos, tmp_path):
    """`--data hub:...` packs once, again after a new commit, and works without a connection."""
    add_shards(remote.add(), photos)
    first = open_images("hub:you/faces", 16)
    modified = first.path.stat().st_mtime_ns
    remote.error = ConnectionError("no route")
    again = open_images("hub:you/faces", 16)
    assert again.path == first.path and again.path.stat().st_mtime_ns == modified and len(again) == 10
    demo = RECIPES["demo"].config
    train = replace(demo.train, device="cpu", precision="fp32", compile="off")
    config, _ = resolve(replace(demo, data="hub:you/faces", train=train))
    assert config.data == "hub:you/faces" and places(config.data) == []  # as a resumed run and --out see it
    opened = open_training_set("hub:you/faces", image_size=16, device=_cpu(), batch_size=2)
    assert opened.kind == "packed" and len(opened.train) == 6
    with pytest.raises(UsageError, match=r"hub:you/faces holds them in other files.*use --loader packed"):
        open_training_set("hub:you/faces", image_size=16, device=_cpu(), batch_size=2, loader="dali")
    remote.error = None
    shutil.rmtree(tmp_path / "remote")
    add_shards(remote.add(), photos, top="default")
    new = open_images("hub:you/faces", 16)
    assert new.path != first.path and not first.path.exists()


def test_revisions_subsets_and_converted_data(remote, photos):
    script = remote.add()
    (script / "faces.py").write_text("a loading script")
    converted = remote.add("refs/convert/parquet")
    add_shards(converted, photos, top="img_align+identity+attr")
    assert hub.download("hub:you/faces").name == "img_align+identity+attr"
    add_shards(converted, photos, top="small")
    with pytest.raises(
        UsageError, match=r"has the subsets img_align\+identity\+attr, small: name one, as in hub:.*/small"
    ):
        hub.download("hub:you/faces")
    with pytest.raises(UsageError, match="no subset 'smal', did you mean 'small'"):
        hub.download("hub:you/faces/smal")
    assert [path.name for path in sorted(hub.download("hub:you/faces/small").iterdir())] == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00001.parquet",
    ]
    add_shards(converted, photos, top="")
    with pytest.raises(UsageError, match=r"/small; the files beside these folders can be had by downloading them"):
        hub.download("hub:you/faces")
    add_shards(remote.add("v2"), photos, top="")
    assert len(list(hub.download("hub:you/faces@v2").iterdir())) == 2
    assert remote.asked[-1][0] == "commit-v2"


def test_a_webdataset(remote, photos):
    folder = remote.add()
    for split, names in (("train", slice(0, 8)), ("val", slice(8, 10))):
        write_members(folder / f"faces-{split}-000000.tar", samples(photos)[names])
    images = open_images("hub:you/faces", 16)
    assert len(images) == 10 and np.bincount(images.splits).tolist() == [8, 2]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_bare(errors.RepositoryNotFoundError), "it does not exist, or it is private: `hf auth login` may help"),
        (_bare(errors.GatedRepoError), "it is gated: accept its terms on its page"),
        (errors.OfflineModeIsEnabled("offline mode"), r"it could not be reached \(offline mode\)"),
        (OSError(errno.ENOSPC, "No space left"), r"it could not be written \(No space left\): free some space"),
        (ConnectionError("no route\nto host"), r"it could not be reached \(no route\)"),
    ],
)
def test_what_goes_wrong_is_said(remote, error, words):
    remote.error = error
    with pytest.raises(
        FastvaeError, match=rf"^hub:you/faces cannot be downloaded: {words}.*give their folder"
    ) as caught:
        open_images("hub:you/faces", 16)
    assert "\n" not in str(caught.value)


def test_an_incomplete_download_is_not_used_offline(remote, photos, tmp_path):
    add_shards(remote.add(), photos)
    folder = hub.download("hub:you/faces")
    remote.error = ConnectionError("no route")
    assert hub.download("hub:you/faces") == folder
    (folder / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(FastvaeError, match="cannot be downloaded"):
        hub.download("hub:you/faces")


def test_no_data_there(remote):
    (remote.add() / "photos.zip").write_text("x")
    with pytest.raises(FastvaeError, match=r"no .parquet and no .tar files \(in main\); it has photos.zip: download"):
        hub.download("hub:you/faces")
    with pytest.raises(FastvaeError, match="it has no revision 'v9'"):
        hub.download("hub:you/faces@v9")


@pytest.mark.parametrize("name", ["hub:", "hub:faces", "hub:you/", "hub:you/faces@", "hub:../faces"])
def test_names_of_another_form(name, tmp_path):
    with pytest.raises(UsageError, match="expected hub:user/name"):
        prepare(name, tmp_path / "a.fvae")


def test_without_huggingface_hub(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FastvaeError, match=r"pip install -e '\.\[hub\]'"):
        prepare("hub:you/faces", tmp_path / "a.fvae")


def _cpu():
    import torch

    return torch.device("cpu")
