"""Which loader brings which data, and what is said where none can."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fastvae.data import dataset
from fastvae.data.decoders import dali as decode_dali
from fastvae.data.decoders import pillow as decode_pillow
from fastvae.data.loaders.packed import PackedLoader
from fastvae.data.loaders.pillow import PillowLoader
from fastvae.data.training_set import open_training_set
from fastvae.errors import FastvaeError, UsageError
from tests.data.jpeg_folder import in_batches, save_faces
from tests.data.layouts import write_cifar_binary

SIZE = 16


def opened(data, **options):
    options = {"image_size": SIZE, "device": torch.device("cpu"), "batch_size": 8, "workers": 1, **options}
    return open_training_set(str(data), **options)


@pytest.fixture
def faces(tmp_path):
    save_faces(tmp_path / "faces", 40)
    return tmp_path / "faces"


def pixels_of(folder, indices):
    paths = sorted(folder.iterdir())
    return np.stack(list(decode_pillow.decode([paths[i] for i in indices], crop="auto", size=SIZE, workers=1)))


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        ("auto", "packed: decoded once, since there is no GPU to decode on"),
        ("packed", "packed: as requested"),
        ("pillow", "pillow: as requested"),
        ("dali", "dali on the CPU: as requested"),
    ],
)
def test_a_folder_of_jpegs(faces, loader, reason):
    if loader == "dali" and not decode_dali.is_available():
        pytest.skip("DALI is not installed")
    images = opened(faces, loader=loader)
    assert images.reason == reason
    held_out = [19, 39]
    assert images.train.dtype == np.int64
    assert images.train.tolist() == [index for index in range(40) if index not in held_out]
    # Held-out images are Pillow's, whoever brings the others.
    for count in (1, 2, 99):
        assert np.array_equal(images.held_out(count), pixels_of(faces, held_out[:count]))
    batches = torch.cat([batch.clone() for batch in images.loader.batches(in_batches(images.train, 8))]).numpy()
    levels = np.abs(batches.astype(int) - pixels_of(faces, images.train))
    assert levels.max() <= (19 if loader == "dali" else 0)


def test_streaming_prepares_nothing(faces, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))
    opened(faces, loader="pillow").held_out(2)
    assert not (tmp_path / "cache").exists()
    opened(faces)
    assert (tmp_path / "cache").exists()


def test_auto_on_a_gpu(faces, monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(decode_dali, "is_available", lambda: False)
    assert "DALI is not installed" in opened(faces, device=gpu).reason
    monkeypatch.setattr(decode_dali, "is_available", lambda: True)
    images = opened(faces, device=gpu)
    assert images.reason == "dali on the GPU: a folder of JPEGs, a GPU and DALI"
    assert type(images.loader).__name__ == "DaliLoader"
    Image.new("RGB", (20, 20)).save(faces / "other.png")
    assert opened(faces, device=gpu).reason == "packed: decoded once, since 1 pictures are not JPEGs"


def test_a_packed_file(packed):
    for loader in ("auto", "packed"):
        images = opened(packed.path, image_size=32, loader=loader)
        assert isinstance(images.loader, PackedLoader) and images.name == str(packed.path)
        assert np.array_equal(images.held_out(3), packed.images[40:43]) and len(images.held_out(99)) == 8
        assert type(images.held_out(3)) is np.ndarray
        (batch,) = images.loader.batches([np.array([5, 3])])
        assert np.array_equal(batch, packed.images[[5, 3]])


@pytest.mark.parametrize("loader", ["dali", "pillow"])
def test_pixels_need_no_decoder(packed, loader):
    for data in (packed.path, "faces"):
        with pytest.raises(UsageError, match="contains decoded pixels; use --loader packed or auto"):
            opened(data, image_size=32, loader=loader)


def test_the_embedded_faces(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset, "EMBEDDED_COUNT", 40)
    monkeypatch.setattr(dataset, "_CHUNK", 20)
    images = opened("faces")
    assert len(images.train) == 38 and len(images.held_out(9)) == 2
    assert images.reason == "packed: its pixels need no decoding"


@pytest.mark.parametrize("loader", ["dali", "pillow"])
def test_cifar_is_no_folder_of_pictures(tmp_path, loader):
    write_cifar_binary(tmp_path)
    with pytest.raises(UsageError, match="cifar10 in arrays; use --loader packed or auto"):
        opened(tmp_path, loader=loader)
    assert len(opened(tmp_path, image_size=32).train) == 15


def test_pictures_that_are_no_jpegs(faces):
    Image.new("RGB", (20, 20)).save(faces / "a.png")
    Image.new("RGB", (20, 20)).save(faces / "b.webp")
    with pytest.raises(UsageError, match=r"2 of 42 pictures in .* are not JPEGs \(first: a.png\); use --loader pillow"):
        opened(faces, loader="dali")
    assert isinstance(opened(faces, loader="pillow").loader, PillowLoader)


def test_every_training_set_has_an_identity(faces, packed, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset, "EMBEDDED_COUNT", 40)
    monkeypatch.setattr(dataset, "_CHUNK", 20)
    once = opened(faces).identity
    assert (once.kind, once.train) == ("packed", 38)
    streamed = opened(faces, loader="pillow").identity
    assert (streamed.kind, streamed.train) == ("pictures", 38)
    if decode_dali.is_available():
        assert opened(faces, loader="dali").identity == streamed
    embedded = opened("faces").identity
    assert (embedded.kind, embedded.train) == ("faces", 38)
    assert opened(packed.path, image_size=32).identity.train == 40
    shutil.copytree(faces, tmp_path / "copy")
    assert opened(tmp_path / "copy").identity == once
    assert opened(tmp_path / "copy", loader="pillow").identity == streamed
    (tmp_path / "copy/0000.jpg").unlink()
    assert opened(tmp_path / "copy").identity != once
    assert opened(tmp_path / "copy", loader="pillow").identity != streamed


def test_a_folder_is_read_once(faces, monkeypatch, caplog):
    monkeypatch.setattr(decode_dali, "is_available", lambda: True)
    Image.new("RGB", (20, 20)).save(faces / "other.png")
    with caplog.at_level("INFO", "fastvae"):
        opened(faces, device=torch.device("cuda", 0))
    assert caplog.text.count("read as a plain folder") == 1


def test_jpegs_of_all_endings(faces):
    for number, ending in enumerate((".jfif", ".JPE", "")):
        (faces / f"{number:04}.jpg").rename(faces / f"{number:04}{ending}")
    assert opened(faces, loader="pillow").train.tolist() == [index for index in range(40) if index not in (19, 39)]
    if decode_dali.is_available():
        opened(faces, loader="dali")


def test_nothing_is_held_out(tmp_path):
    save_faces(tmp_path, 1)
    for loader in ("packed", "pillow"):
        with pytest.raises(FastvaeError, match="every image is in the train split"):
            opened(tmp_path, loader=loader)


def test_bad_arguments(tmp_path):
    with pytest.raises(UsageError, match="unknown loader 'pilow', did you mean 'pillow'"):
        opened(tmp_path, loader="pilow")
    with pytest.raises(UsageError, match="workers must be from 1 to 1024"):
        opened(tmp_path, workers=0)
    for loader in ("auto", "dali", "pillow", "packed"):
        with pytest.raises(FastvaeError, match="does not exist"):
            opened(tmp_path / "nothing", loader=loader)
