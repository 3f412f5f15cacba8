"""Training sets are the same or not, wherever they lie."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from fastvae.data import identity
from fastvae.data.identity import Identity
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.data.sources.detect import read_source
from fastvae.files.reading import conform
from tests.data.layouts import CELEBA_ATTRIBUTES, write_celeba_lists
from tests.data.pictures import save_photos


def write(path, *, seed=0, splits=(0, 0, 1), size=8, **info):
    with PackedWriter(path, image_size=size, overwrite=True) as writer:
        images = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
        writer.append(images, splits=np.array(splits))
        writer.info = info
    return identity.of_packed(PackedImages.open(path))


def test_a_packed_file_is_its_images_and_splits(tmp_path):
    first = write(tmp_path / "a.fvae", source="photos")
    assert (first.kind, first.train, len(first.digest)) == ("packed", 2, 64)
    assert write(tmp_path / "b.fvae", source="other name", skipped={"count": 0}) == first
    others = [write(tmp_path / "b.fvae", **change) for change in ({"seed": 1}, {"splits": (0, 1, 0)}, {"size": 16})]
    assert len({first.digest, *(other.digest for other in others)}) == 4


def test_it_survives_json():
    made = Identity("ab" * 32, "packed", 7)
    assert conform(json.loads(json.dumps(dataclasses.asdict(made))), Identity, "data") == made


def test_pictures_are_their_names_splits_and_sizes(tmp_path):
    names = ["a.png", os.fsdecode(b"b\xfc.png"), "c.png"]
    save_photos(tmp_path / "a", names)
    first = identity.of_pictures(read_source(tmp_path / "a"), "auto")
    assert (first.kind, first.train) == ("pictures", 2)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    copy = tmp_path / "b"
    assert identity.of_pictures(read_source(copy), "auto") == first
    assert identity.of_pictures(read_source(copy), "center") != first
    with (copy / "a.png").open("ab") as file:
        file.write(b"\0")
    assert identity.of_pictures(read_source(copy), "auto") != first
    shutil.copyfile(tmp_path / "a/a.png", copy / "a.png")
    (copy / "c.png").rename(copy / "d.png")
    assert identity.of_pictures(read_source(copy), "auto") != first


def test_the_embedded_faces_are_a_version_a_number_and_a_size():
    first = identity.of_faces(1, 6000, 64, 5700)
    assert first == identity.of_faces(1, 6000, 64, 5700) and (first.kind, first.train) == ("faces", 5700)
    others = [
        identity.of_faces(2, 6000, 64, 5700),
        identity.of_faces(1, 600, 64, 570),
        identity.of_faces(1, 6000, 32, 5700),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 4


@pytest.fixture
def key(tmp_path):
    """The key of the folder `set` as it is now."""
    save_photos(tmp_path / "set", [f"{number:06}.png" for number in range(1, 4)])
    return lambda crop="auto", size=32: identity.cache_key(read_source(tmp_path / "set"), image_size=size, crop=crop)


def keep_times(path, change):
    """Changes a file, and gives it back its time of change, as `cp -p` and `rsync -t` do."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of the file system may be a slow one
        change()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_cache_key_says_everything_that_pixels_depend_on(tmp_path, key, monkeypatch):
    folder = tmp_path / "set"
    keys = [key(), key(crop="center"), key(size=16)]
    assert key() == keys[0]
    data = bytearray((folder / "000001.png").read_bytes())
    keep_times(folder / "000001.png", lambda: (folder / "000001.png").write_bytes(data[:-1] + b"\0"))
    keys.append(key())
    (folder / "000002.png").rename(folder / "000009.png")
    keys.append(key())
    (folder / "000009.png").rename(folder / "000002.png")
    monkeypatch.setattr(identity.decode_pillow, "describe", lambda: "pillow of another version")
    keys.append(key())
    monkeypatch.undo()
    monkeypatch.setattr(identity, "_DECODING_CODE", identity._DECODING_CODE[1:])
    keys.append(key())
    monkeypatch.undo()
    write_celeba_lists(tmp_path)
    keys.append(key())
    write_celeba_lists(tmp_path, attributes=CELEBA_ATTRIBUTES.replace("-1 -1", "-1  1"))
    keys.append(key())
    (tmp_path / "list_eval_partition.txt").unlink()
    (tmp_path / "list_eval_partition.csv").write_text("image_id,partition\n000001.jpg,0\n000002.jpg,0\n000003.jpg,2\n")
    keys.append(key())
    (tmp_path / "set").rename(tmp_path / "old")
    (tmp_path / "set").symlink_to("old")
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_cache_key_says_what_links_lead_to(tmp_path):
    save_photos(tmp_path / "one", ["a.png"])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    keys = []
    for target in ("one", "two"):
        for link in ("file", "folder"):
            folder = tmp_path / f"{link} link"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            if link == "file":
                (folder / "a.png").symlink_to(tmp_path / target / "a.png")
            else:
                (folder / "sub").symlink_to(tmp_path / target)
            keys.append(identity.cache_key(read_source(folder), image_size=8, crop="auto"))
    with (tmp_path / "two/a.png").open("ab") as file:
        file.write(b"\0")
    keys += [
        identity.cache_key(read_source(tmp_path / f"{link} link"), image_size=8, crop="auto")
        for link in ("file", "folder")
    ]
    assert len(set(keys)) == 6


def test_what_is_not_read_does_not_matter(tmp_path, key):
    before = key()
    (tmp_path / "set/notes.txt").write_text("changed")
    (tmp_path / "set/.hidden.png").touch()
    os.mkfifo(tmp_path / "set/pipe.png")
    assert key() == before
