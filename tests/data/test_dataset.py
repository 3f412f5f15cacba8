"""What `--data` may name."""

import numpy as np
import pytest
from PIL import Image

from fastvae.data import dataset, faces
from fastvae.errors import FastvaeError, UsageError


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


def test_a_packed_file_of_another_size(packed):
    assert dataset.open_images(str(packed.path), 32).path == packed.path
    with pytest.raises(UsageError, match="--image-size 32"):
        dataset.open_images(str(packed.path), 64)


def test_nothing_there(tmp_path):
    with pytest.raises(FastvaeError, match="does not exist"):
        dataset.open_images(str(tmp_path / "nothing"), 64)
    with pytest.raises(FastvaeError, match="is empty"):
        dataset.open_images(str(tmp_path), 64)
