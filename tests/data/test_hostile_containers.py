"""Damaged and hostile containers: every one works or is one FastvaeError of one line, in bounded time and memory."""

import json
import struct
from random import Random

import pytest

from fastvae.data.containers.archives import open_archive
from fastvae.data.decoders.encoded import BrokenImage
from fastvae.data.sources.parquet import read_parquet
from fastvae.data.sources.webdataset import read_tars
from fastvae.errors import FastvaeError
from tests.data.packs import CLASS_LABEL, named_bytes, samples, write_members, write_parquet, write_tar, write_zip
from tests.data.pictures import save_photos
from tests.data.test_hostile_data import outcomes
from tests.mutations import mutated_bytes, mutated_json

LABELS = [{"cls": number % 3, "Smiling": number % 2 == 0} for number in range(4)]


@pytest.fixture
def photos(tmp_path):
    save_photos(tmp_path / "photos", ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.png"])
    return tmp_path / "photos"


def use_all_of(source):
    """What `prepare` asks of a source."""
    assert len(source.names) == len(source.splits) == len(source.attributes) == len(source.images) > 0
    assert source.attributes.shape[1] == len(source.attribute_names) and source.attributes.max(initial=0) <= 1
    assert all(name.isprintable() for name in source.attribute_names)
    assert not any("\x00" in name for name in source.names)
    count = 0
    for image in source.images:
        assert isinstance(image, bytes | BrokenImage)
        count += 1
    assert count == len(source.names)


def check_mutations(file, read, *, refused_at_least):
    whole = file.read_bytes()
    worked, refused = outcomes(read, lambda random: file.write_bytes(mutated_bytes(whole, random)), 200)
    assert worked and refused > refused_at_least


def test_zip_bytes(tmp_path, photos):
    write_zip(tmp_path / "a.zip", photos)

    def read():
        pictures = open_archive(tmp_path / "a.zip")
        assert len(list(pictures)) == len(pictures.names)

    check_mutations(tmp_path / "a.zip", read, refused_at_least=20)


def test_tar_bytes(tmp_path, photos):
    write_tar(tmp_path / "a.tar", photos)
    check_mutations(tmp_path / "a.tar", lambda: use_all_of(read_tars(tmp_path / "a.tar")), refused_at_least=20)


def test_webdataset_labels(tmp_path, photos):
    members = samples(photos, LABELS)

    def write(random: Random) -> None:
        changed = dict(members)
        name = random.choice([name for name in changed if not name.endswith((".jpg", ".png"))])
        value = json.loads(changed[name])
        is_json = random.random() < 0.5
        changed[name] = (
            json.dumps(mutated_json(value, random)).encode() if is_json else mutated_bytes(changed[name], random)
        )
        write_members(tmp_path / "a.tar", list(changed.items()))

    worked, refused = outcomes(lambda: use_all_of(read_tars(tmp_path / "a.tar")), write, 200)
    assert worked > 50 and refused > 20


def test_parquet_bytes(tmp_path, photos):
    pytest.importorskip("pyarrow")
    columns = {"label": [0, 1, 1, 0], "Smiling": [True, False, True, True], "text": ["a", "b", "c", "d"]}
    write_parquet(tmp_path / "a.parquet", named_bytes(photos), columns, features={"label": CLASS_LABEL}, rows=2)
    check_mutations(
        tmp_path / "a.parquet", lambda: use_all_of(read_parquet(tmp_path / "a.parquet")), refused_at_least=50
    )


@pytest.mark.parametrize("field", ["label", "path"])
def test_parquet_texts_that_are_not_utf8(tmp_path, photos, field):
    pytest.importorskip("pyarrow")
    marked = [("XXXX.jpg" if field == "path" else name, data) for name, data in named_bytes(photos)]
    write_parquet(tmp_path / "a.parquet", marked, {"label": ["YYYY"] * 4})
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole.replace(b"XXXX" if field == "path" else b"YYYY", b"caf\xe9"))
    with pytest.raises(FastvaeError, match="is damaged, truncated, or not a Parquet file"):
        use_all_of(read_parquet(tmp_path / "a.parquet"))


def test_sizes_that_are_only_claimed_cost_nothing(tmp_path, photos):
    """Containers of a terabyte, of which the disk holds none, and lists and headers that claim as much."""
    write_zip(tmp_path / "a.zip", photos)
    write_tar(tmp_path / "a.tar", photos)
    for file in (tmp_path / "a.zip", tmp_path / "a.tar", tmp_path / "a.parquet"):
        with file.open("ab") as opened:
            opened.truncate(1 << 40)
    for file in (tmp_path / "a.zip", tmp_path / "a.parquet"):
        with pytest.raises(FastvaeError):
            read_parquet(file) if file.suffix == ".parquet" else open_archive(file)
    # Zeros behind a tar file's end are allowed.
    assert len(open_archive(tmp_path / "a.tar").names) == 4
    # The list of a zip file's members at the end of 2 GiB that the disk does not hold.
    with (tmp_path / "b.zip").open("wb") as file:
        file.truncate(1 << 31)
        file.seek(0, 2)
        file.write(struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 60_000, 60_000, (1 << 31) - 1, 1, 0))
    with pytest.raises(FastvaeError, match=r"b\.zip is damaged.*claims 2,147,483,647 bytes"):
        open_archive(tmp_path / "b.zip")
    # A header of 8 GiB before a tar file's first member.
    write_members(tmp_path / "b.tar", [("x.jpg", b"x")])
    header = bytearray((tmp_path / "b.tar").read_bytes()[:512])
    header[156:157], header[124:136] = b"L", b"77777777777\x00"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\x00 ".encode()
    with (tmp_path / "b.tar").open("wb") as file:
        file.write(header)
        file.truncate(1 << 40)
    with pytest.raises(FastvaeError, match=r"b\.tar is damaged.*claims 8,589,934,592 bytes"):
        open_archive(tmp_path / "b.tar")
