"""WebDatasets: samples of a picture and its labels in tar files."""

import json

import numpy as np
import pytest

from fastvae.data.prepare import prepare
from fastvae.data.sources.detect import read_source
from fastvae.errors import FastvaeError
from tests.data.packs import samples, write_members
from tests.data.pictures import save_photos

LABELS = [{"cls": number % 3, "Smiling": number % 2 == 0, "Male": 1 - 2 * (number % 2)} for number in range(12)]


@pytest.fixture
def photos(tmp_path):
    save_photos(tmp_path / "photos", [f"{number:02}.jpg" for number in range(12)])
    return tmp_path / "photos"


def test_labels_and_pixels_of_one_file(tmp_path, photos):
    expected = prepare(photos, tmp_path / "folder.fvae", image_size=16, progress=False)
    write_members(tmp_path / "faces.tar", samples(photos, LABELS))
    packed = prepare(tmp_path / "faces.tar", tmp_path / "faces.fvae", image_size=16, progress=False)
    assert np.array_equal(packed.images, expected.images) and packed.header["kind"] == "webdataset"
    assert packed.names[:2] == ("000000.jpg", "000001.jpg")
    assert packed.attribute_names == ("Smiling", "Male", "cls 0", "cls 1", "cls 2")
    expected = [[n % 2 == 0, n % 2 == 0, *(n % 3 == c for c in range(3))] for n in range(12)]
    assert np.array_equal(packed.attributes, np.array(expected))


def test_shards_and_their_splits(tmp_path, photos):
    members = samples(photos, LABELS)
    for name, start in (("faces-train-000000", 0), ("faces-train-000001", 12), ("faces-val-000000", 24)):
        (tmp_path / "set").mkdir(exist_ok=True)
        write_members(tmp_path / "set" / f"{name}.tar", members[start : start + 12])
    write_members(tmp_path / "set" / "extra.tar", members[:3])
    (tmp_path / "set" / ".hidden-test.tar").write_bytes(b"junk")
    source = read_source(tmp_path / "set")
    assert source.splits.tolist() == [0] * 8 + [1] * 4
    assert source.names[4] == "faces-train-000001/000004.jpg" and len(source.names) == 12
    assert source.left_out == {"shards of no split": ["extra.tar"], "hidden": [".hidden-test.tar"]}
    assert source.attributes[:, 0].tolist() == [1, 0] * 6
    assert [*source.images] == [data for name, data in members if name.endswith(".jpg")]


def test_splits_of_folders_in_one_file(tmp_path, photos):
    members = [
        (f"{'train' if i < 24 else 'test'}/{name}", data) for i, (name, data) in enumerate(samples(photos, LABELS))
    ]
    write_members(tmp_path / "faces.tar", members)
    source = read_source(tmp_path / "faces.tar")
    assert np.bincount(source.splits).tolist() == [8, 0, 4] and source.names[0] == "test/000008.jpg"
    assert source.attributes[0].tolist() == [1, 1, 0, 0, 1]


def test_class_names_partial_labels_and_further_pictures(tmp_path, photos):
    photo = (photos / "00.jpg").read_bytes()
    members = [
        ("a.jpg", photo),
        ("a.cls", b"dog\n"),
        ("b.mask.png", photo),
        ("b.jpg", photo),
        ("b.cls", b"cat"),
        ("b.json", json.dumps({"caption": "a cat", "id": 10**12, "Male": True, "x": [1]}).encode()),
        ("lost.json", b"{}"),
    ]
    write_members(tmp_path / "a.tar", members)
    source = read_source(tmp_path / "a.tar")
    assert source.names == ["a.jpg", "b.jpg"] and source.attribute_names == ("cat", "dog")
    assert source.attributes.tolist() == [[0, 1], [1, 0]]
    assert source.left_out == {
        "further pictures of the same sample": ["b.mask.png"],
        "not pictures": ["lost.json"],
        "columns that are neither attributes nor classes": ["caption", "Male"],
    }


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("1.json", b"{", "1.json is no label"),
        ("1.json", b"[1]", "expected an object; got list"),
        ("1.json", b'{"a": NaN}', "it contains NaN"),
        ("1.json", b" " * (2 << 20), "it has 2,097,152 bytes"),
        ("1.cls", b"", "expected one number or name"),
        ("1.cls", b"\xff\xfe", "it is not UTF-8 text"),
    ],
)
def test_damaged_labels(tmp_path, photos, name, data, words):
    write_members(tmp_path / "a.tar", [("1.jpg", b"x"), (name, data)])
    with pytest.raises(FastvaeError, match=rf"a\.tar: .*{words}.*expected a class in a .cls"):
        read_source(tmp_path / "a.tar")
