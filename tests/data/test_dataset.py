"""What `--data` may name."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fastvae.data import dataset
from fastvae.data.faces import faces
from fastvae.errors import FastvaeError, UsageError
from fastvae.files import cache
from tests.data.layouts import CELEBA_SPLITS, names_in, write_celeba_lists
from tests.data.packs import named_bytes, write_parquet, write_tar, write_zip
from tests.data.pictures import save_photos


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_embedded_faces_are_drawn_once(own_cache, monkeypatch):
    monkeypatch.setattr(dataset, "EMBEDDED_COUNT", 40)
    monkeypatch.setattr(dataset, "_CHUNK", 20)
    images = dataset.open_images("faces", 16)
    expected, attributes = faces.draw_faces(40, size=16)
    assert np.array_equal(images.images, expected)
    assert np.array_equal(images.attributes, attributes)
    assert images.attribute_names == faces.ATTRIBUTES
    assert len(images.indices("train")) == 38 and images.held_out().tolist() == [0, 20]
    monkeypatch.setattr(faces, "draw_faces", None)
    assert dataset.open_images("faces", 16).path == images.path


def test_a_folder_of_the_embedded_set_s_name_is_named(own_cache, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(dataset, "EMBEDDED_COUNT", 20)
    monkeypatch.setattr(dataset, "_CHUNK", 20)
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "fastvae")
    dataset.open_images("faces", 8)
    assert "./faces" not in caplog.text
    (tmp_path / "faces").mkdir()
    assert len(dataset.open_images("faces", 8).images) == 20 and caplog.text.count("holds is ./faces") == 1


def test_a_cache_that_can_only_be_read_is_read(own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "EMBEDDED_COUNT", 40)
    monkeypatch.setattr(dataset, "_CHUNK", 20)
    folder = tmp_path / "pictures"
    save_photos(folder, [f"{number}.png" for number in range(20)])
    paths = [dataset.open_images(data, 16).path for data in ("faces", str(folder))]
    monkeypatch.setattr(cache, "_obstacle", lambda folder: "cannot be written")
    assert [dataset.open_images(data, 16).path for data in ("faces", str(folder))] == paths
    with pytest.raises(FastvaeError, match="FASTVAE_CACHE"):
        dataset.open_images("faces", 32)


def test_a_folder_is_prepared_once_and_again_when_it_changes(own_cache, tmp_path, caplog):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(folder / f"{i:02}.png")
    with caplog.at_level("INFO", logger="fastvae"):
        first = dataset.open_images(str(folder), 16)
        assert len(first) == 20 and "preparing" in caplog.text
        caplog.clear()
        assert dataset.open_images(str(folder), 16).path == first.path
        assert "preparing" not in caplog.text
    Image.new("RGB", (20, 20), (99, 0, 0)).save(folder / "99.png")
    assert len(dataset.open_images(str(folder), 16)) == 21


def prepared(caplog, folder, size=16):
    """The images, and whether they were prepared just now."""
    caplog.clear()
    with caplog.at_level("INFO", logger="fastvae"):
        images = dataset.open_images(str(folder), size)
    images.verify()
    return images, "preparing" in caplog.text


def test_what_is_trained_on_is_what_is_there(own_cache, tmp_path, caplog):
    """Lists that are added and corrected, and files behind links that change."""
    save_photos(tmp_path / "disk", [f"{number:06}.jpg" for number in range(1, 4)])
    folder = tmp_path / "set/faces"
    folder.mkdir(parents=True)
    for file in (tmp_path / "disk").iterdir():
        (folder / file.name).symlink_to(file)
    assert prepared(caplog, folder)[0].attributes is None
    write_celeba_lists(tmp_path / "set")
    images, again = prepared(caplog, folder)
    assert again and images.attribute_names == ("Bald", "Smiling") and images.splits.tolist() == [0, 1, 2]
    write_celeba_lists(tmp_path / "set", splits=CELEBA_SPLITS.replace("2.jpg 1", "2.jpg 0"))
    assert prepared(caplog, folder)[0].splits.tolist() == [0, 0, 2]
    for file in (tmp_path / "disk").iterdir():
        Image.new("RGB", (40, 40), "white").save(file)
    assert prepared(caplog, folder)[0].images.min() == 255
    assert prepared(caplog, folder)[1] is False


def test_only_the_newest_state_of_a_folder_is_kept_and_nothing_else_is_removed(own_cache, tmp_path, caplog):
    for place in ("a", "b"):
        save_photos(tmp_path / place / "set", ["1.png", "2.png"])
    other = prepared(caplog, tmp_path / "b/set")[0]
    old = prepared(caplog, tmp_path / "a/set")[0]
    smaller = prepared(caplog, tmp_path / "a/set", 8)[0]
    before = old.images.copy()
    stem = old.path.stem[:-17]
    others = {
        f"{stem}.fvae",
        f"{stem}-my copy.fvae",
        f"{stem}-0123456789abcdef.fvae.bak",
        f"{stem}-0123456789ABCDEF.fvae",
    }
    for name in others:
        (own_cache / name).touch()
    (own_cache / f"{stem}-0123456789abcdef.fvae").mkdir()
    save_photos(tmp_path / "a/set", ["3.png"])
    new, again = prepared(caplog, tmp_path / "a/set")
    assert again and len(new) == 3 and "removed" in caplog.text
    kept = {new.path.name, other.path.name, smaller.path.name, *others, f"{stem}-0123456789abcdef.fvae"}
    assert set(names_in(own_cache)) == kept
    assert np.array_equal(old.images, before), "who has it open keeps it"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"1.png", b"2.png")),
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
    ],
)
def test_a_cached_file_that_is_damaged_is_made_again(own_cache, tmp_path, caplog, damage):
    save_photos(tmp_path / "set", ["1.png", "3.png"])
    images, _ = prepared(caplog, tmp_path / "set")
    damage(images.path)
    images, again = prepared(caplog, tmp_path / "set")
    assert again and len(images) == 2 and "making " in caplog.text


def test_what_killed_preparations_leave_goes_at_the_next(own_cache, tmp_path, caplog):
    save_photos(tmp_path / "set", ["1.png", "2.png"])
    own_cache.mkdir()
    (own_cache / ".fastvae-0123456789abcdef.part.fvae").write_bytes(bytes(1000))
    images, _ = prepared(caplog, tmp_path / "set")
    assert names_in(own_cache) == [images.path.name]


def test_two_processes_prepare_the_same_folder_at_once(own_cache, tmp_path):
    save_photos(tmp_path / "set", [f"{number}.png" for number in range(60)], width=100, height=100)
    code = "import sys; from fastvae.data.dataset import open_images; open_images(sys.argv[1], 64).verify()"
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "set"]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(names_in(own_cache)) == 1


def test_names_that_are_not_utf8_and_very_long(own_cache, tmp_path, caplog):
    folder = tmp_path / (os.fsdecode(b"\xfc\n") + "x" * 240)
    save_photos(folder, [os.fsdecode(b"\xe9\n.png"), "b.png"])
    (folder / os.fsdecode(b"liesmich-\xfc.txt")).touch()
    images, _ = prepared(caplog, folder)
    assert images.names == ("b.png", os.fsdecode(b"\xe9\n.png"))
    assert all("\n" not in record.getMessage() and record.getMessage().isprintable() for record in caplog.records)


def test_a_path_is_expanded_and_does_not_depend_on_the_working_folder(own_cache, tmp_path, caplog, monkeypatch):
    save_photos(tmp_path / "set", ["1.png", "2.png"])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    first, _ = prepared(caplog, "~/set")
    assert prepared(caplog, "set")[1] is False
    monkeypatch.chdir(first.path.parent)
    assert dataset.open_images(first.path.name, 16).path == first.path
    with pytest.raises(UsageError, match="a path is empty"):
        dataset.open_images("", 16)


def test_a_packed_file_of_another_size(packed):
    assert dataset.open_images(str(packed.path), 32).path == packed.path
    # Commands that do not train show it, too, and have no --image-size of their own.
    with pytest.raises(UsageError, match="prepare them again with --image-size 64, or train with --image-size 32"):
        dataset.open_images(str(packed.path), 64)


def test_nothing_there(tmp_path):
    with pytest.raises(FastvaeError, match="does not exist"):
        dataset.open_images(str(tmp_path / "nothing"), 64)
    with pytest.raises(FastvaeError, match="is empty"):
        dataset.open_images(str(tmp_path), 64)


@pytest.mark.parametrize("kind", ["zip", "tar", "parquet"])
def test_a_container_is_prepared_once_and_again_when_it_changes(own_cache, tmp_path, caplog, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    names = [f"{number:02}.png" for number in range(20)]
    save_photos(tmp_path / "pictures", names)
    file = tmp_path / f"set.{kind}"

    def write():
        if kind == "parquet":
            write_parquet(file, named_bytes(tmp_path / "pictures"))
        else:
            {"zip": write_zip, "tar": write_tar}[kind](file, tmp_path / "pictures")

    write()
    images, said = prepared(caplog, file)
    expected, _ = prepared(caplog, tmp_path / "pictures")
    assert said and np.array_equal(images.images, expected.images) and images.names == tuple(names)
    again, said = prepared(caplog, file)
    assert again.path == images.path and not said
    status = file.stat()
    (tmp_path / "pictures/03.png").write_bytes((tmp_path / "pictures/04.png").read_bytes())
    write()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed, said = prepared(caplog, file)
    assert said and np.array_equal(changed.images[3], expected.images[4])
    assert not images.path.exists()
    assert dataset.identity_of(str(file), changed) != dataset.identity_of(str(file), images)
