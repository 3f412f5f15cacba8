"""Parquet shards as the Hub serves them, which the test writes with pyarrow."""

import json
import sys

import numpy as np
import pytest

from fastvae.attributes.table1 import table1
from fastvae.data.packed import PackedImages
from fastvae.data.prepare import prepare
from fastvae.data.sources.celeba_names import ATTRIBUTES
from fastvae.data.sources.cifar10 import CLASSES
from fastvae.data.sources.detect import read_source
from fastvae.errors import FastvaeError
from tests.data.packs import CLASS_LABEL, named_bytes, write_parquet
from tests.data.pictures import save_photos

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

COUNT = 24


@pytest.fixture
def photos(tmp_path):
    save_photos(tmp_path / "photos", [f"{number:06}.jpg" for number in range(1, COUNT + 1)], width=178, height=218)
    return tmp_path / "photos"


@pytest.mark.parametrize("form", ["booleans", "ones", "structs"])
def test_celeba(tmp_path, photos, form):
    """Three splits, forty columns of attributes and one of identities, in small row groups."""
    expected = prepare(photos, tmp_path / "folder.fvae", image_size=32, progress=False)
    names = sorted(ATTRIBUTES, key=str.lower)
    values = np.random.Generator(np.random.PCG64(0)).integers(0, 2, (COUNT, 40))
    images = named_bytes(photos)
    pieces = {"valid-00000-of-00001": (16, 20), "train-00000-of-00002": (0, 9), "train-00001-of-00002": (9, 16)}
    for shard, (start, stop) in {**pieces, "test-00000-of-00001-dc1ee799d2d7e64a": (20, 24)}.items():
        part = values[start:stop]
        told = part == 1 if form == "booleans" else part * 2 - 1
        attributes = {name: told[:, i] for i, name in enumerate(names)}
        if form == "structs":
            attributes = {"attributes": [dict(zip(names, (row == 1).tolist(), strict=True)) for row in part]}
        columns = {"celeb_id": list(range(start * 100, stop * 100, 100)), **attributes}
        write_parquet(tmp_path / "set" / "data" / f"{shard}.parquet", images[start:stop], columns, rows=3)
    packed = prepare(tmp_path / "set", tmp_path / "packed.fvae", image_size=32, progress=False)
    assert np.array_equal(packed.images, expected.images) and packed.names == expected.names
    assert packed.splits.tolist() == [0] * 16 + [1] * 4 + [2] * 4
    assert packed.attribute_names == tuple(names) and np.array_equal(packed.attributes, values)
    assert packed.header["kind"] == "celeba" and packed.header["crop"] == "auto"
    assert read_source(tmp_path / "set").left_out == {"columns that are neither attributes nor classes": ["celeb_id"]}


def test_celebas_names_are_those_of_its_list():
    assert table1().keys() == ATTRIBUTES


def test_cifar10(tmp_path):
    """Names of classes out of the metadata, no file names, 32x32 by default."""
    save_photos(tmp_path / "photos", [f"{number}.png" for number in range(10)], width=32, height=32)
    images = [(None, data) for _, data in named_bytes(tmp_path / "photos")]
    features = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    for split, rows in (("train", range(6)), ("test", range(6, 10))):
        file = tmp_path / "plain_text" / f"{split}-00000-of-00001.parquet"
        write_parquet(file, [images[i] for i in rows], {"label": list(rows)}, features=features, image="img")
    packed = prepare(tmp_path / "plain_text", tmp_path / "cifar.fvae", progress=False)
    assert packed.images.shape == (10, 32, 32, 3) and packed.attribute_names == CLASSES
    assert np.array_equal(packed.attributes, np.eye(10)) and packed.splits.tolist() == [0] * 6 + [2] * 4
    assert packed.names[0] == "train-00000-of-00001/0" and packed.names[9] == "test-00000-of-00001/3"


def test_one_file_and_the_folders_of_converted_data(tmp_path, photos):
    images = named_bytes(photos)
    labels = {"label": [0, 1] * 12}
    write_parquet(tmp_path / "a.parquet", images, labels, features={"label": CLASS_LABEL})
    source = read_source(tmp_path / "a.parquet")
    assert source.attribute_names == ("cat", "dog") and np.bincount(source.splits).tolist() == [23, 1]
    for split in ("partial-train", "validation"):
        write_parquet(tmp_path / "default" / split / "0000.parquet", images[:4], {"label": ["dog", "cat"] * 2})
    source = read_source(tmp_path / "default")
    assert source.splits.tolist() == [0] * 4 + [1] * 4 and source.attribute_names == ("cat", "dog")


def test_plain_bytes_and_large_types(tmp_path, photos):
    images = [data for _, data in named_bytes(photos)]
    writes_views = int(pyarrow.__version__.split(".")[0]) >= 21
    for kind in (pyarrow.binary(), pyarrow.large_binary(), *([pyarrow.binary_view()] if writes_views else [])):
        parquet.write_table(pyarrow.table({"jpg": pyarrow.array(images, kind)}), tmp_path / "a.parquet")
        assert list(read_source(tmp_path / "a.parquet").images) == images


def test_rows_without_bytes_are_broken(tmp_path, photos, caplog):
    images = named_bytes(photos) * 10
    images[3] = ("elsewhere.jpg", None)
    write_parquet(tmp_path / "a.parquet", images, rows=50)
    with caplog.at_level("WARNING", "fastvae"):
        packed = prepare(tmp_path / "a.parquet", tmp_path / "a.fvae", image_size=16, progress=False)
    assert len(packed) == 239 and "skipped elsewhere.jpg: it holds a picture's path and not its bytes" in caplog.text
    table = pyarrow.table(
        {"image": pyarrow.array([None, {"bytes": b"x"}], pyarrow.struct([("bytes", pyarrow.binary())]))}
    )
    parquet.write_table(table, tmp_path / "b.parquet")
    assert [type(image).__name__ for image in read_source(tmp_path / "b.parquet").images] == ["BrokenImage", "bytes"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["a"], "n": [1.0]}, r"has no column of images.*its columns are text: string, n: double"),
        ({"image": ["a.jpg"]}, r"has no column of images.*image: string"),
        ({"a": [{"bytes": b"x"}], "b": [{"bytes": b"x"}]}, r"has several columns of images \(a, b\); keep one"),
        ({"image": pyarrow.array([], pyarrow.binary())}, "contains no pictures: its Parquet files have 0 rows"),
    ],
)
def test_wrong_columns(tmp_path, columns, words):
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(FastvaeError, match=rf"a\.parquet {words}"):
        read_source(tmp_path / "a.parquet")


def test_what_is_beside_the_shards_is_said(tmp_path, photos):
    images = named_bytes(photos)
    for split in ("set/train", "disk/test"):
        write_parquet(tmp_path / split / "0000.parquet", images[:4])
    (tmp_path / "set/test").symlink_to(tmp_path / "disk/test")
    for name, target in (("again", "train"), ("loop", "."), ("up", "..")):
        (tmp_path / "set" / name).symlink_to(target)
    for name in ("a.zip", "b.tar", "README.md", ".gitattributes"):
        (tmp_path / "set" / name).touch()
    source = read_source(tmp_path / "set")
    assert source.splits.tolist() == [0] * 4 + [2] * 4
    assert {name for names in source.left_out.values() for name in names} == {
        "a.zip",
        "b.tar",
        "README.md",
        ".gitattributes",
    }
    assert source.split_rule == "shards test/0000.parquet, train/0000.parquet"
    assert source.left_out["not pictures"] == ["README.md"] and source.left_out["hidden"] == [".gitattributes"]


def test_texts_as_pandas_writes_its_categories(tmp_path, photos):
    texts = pyarrow.array(["cat", "dog", None] * 8).dictionary_encode()
    write_parquet(tmp_path / "a.parquet", named_bytes(photos), {"label": texts})
    source = read_source(tmp_path / "a.parquet")
    assert source.attribute_names == ("cat", "dog")
    assert source.attributes[:3].tolist() == [[1, 0], [0, 1], [0, 0]]


def test_shards_that_do_not_belong_together(tmp_path, photos):
    images = named_bytes(photos)
    write_parquet(tmp_path / "set/train-0.parquet", images, {"label": [0, 1] * 12}, features={"label": CLASS_LABEL})
    write_parquet(tmp_path / "set/test-0.parquet", images, {"age": [0, 1] * 12})
    with pytest.raises(
        FastvaeError,
        match=r"train-0.parquet and test-0.parquet have different columns \(only one of them has age, label\)",
    ):
        read_source(tmp_path / "set")


@pytest.mark.parametrize("first", ["train", "test"])
def test_a_label_that_is_text_in_one_shard_and_a_number_in_another(tmp_path, photos, first):
    images, second = named_bytes(photos), {"train": "test", "test": "train"}[first]
    write_parquet(tmp_path / f"set/{first}.parquet", images, {"label": [0, 1] * 12})
    write_parquet(tmp_path / f"set/{second}.parquet", images, {"label": ["cat", "dog"] * 12})
    with pytest.raises(FastvaeError, match="label is text in some shards and a number in others"):
        read_source(tmp_path / "set")


def test_metadata_that_mean_nothing_are_ignored(tmp_path, photos):
    images = named_bytes(photos)
    write_parquet(tmp_path / "a.parquet", images, {"label": [0, 1] * 12})
    table = parquet.read_table(tmp_path / "a.parquet")
    for text in ("{", "[]", json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}})):
        parquet.write_table(table.replace_schema_metadata({"huggingface": text}), tmp_path / "a.parquet")
        assert read_source(tmp_path / "a.parquet").attribute_names == ("label 0", "label 1")


def test_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(FastvaeError, match=r"pip install -e '\.\[parquet\]'"):
        read_source(tmp_path / "a.parquet")


def test_a_shard_that_is_truncated_after_listing(tmp_path, photos):
    write_parquet(tmp_path / "a.parquet", named_bytes(photos))
    source = read_source(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:5000])
    with pytest.raises(FastvaeError, match=r"a.parquet has been changed meanwhile"):
        list(source.images)


def test_names_with_null_characters(tmp_path, photos):
    images = [(f"../a\x00{number}.jpg", data) for number, (_, data) in enumerate(named_bytes(photos))]
    write_parquet(tmp_path / "a.parquet", images)
    prepare(tmp_path / "a.parquet", tmp_path / "a.fvae", image_size=16, progress=False)
    assert PackedImages.open(tmp_path / "a.fvae").names[0] == r"a\x000.jpg"
