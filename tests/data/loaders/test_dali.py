"""DALI's pixels beside Pillow's, and what happens to files that it should not get or cannot decode."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvae.data.decoders import dali as decode_dali
from fastvae.data.decoders import pillow as decode_pillow
from fastvae.data.loaders import dali as load_dali
from fastvae.data.loaders import dali_pipeline
from fastvae.data.loaders.dali import DaliLoader
from fastvae.data.loaders.picture_files import PictureFiles
from fastvae.data.order import epoch_order
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from tests.data.jpeg_folder import hollow_out, in_batches, make_odd, pictures_in, save_faces, save_many, spoil
from tests.data.pictures import photo

pytestmark = pytest.mark.skipif(not decode_dali.is_available(), reason="DALI is not installed")
CPU = torch.device("cpu")
BATCH = 8


def loader_of(folder, device=CPU, size=64):
    return DaliLoader(pictures_in(folder, size), batch_size=BATCH, device=device, workers=2)


def load(loader, batches):
    """uint8 [N, H, W, 3]."""
    return np.concatenate([batch.cpu().numpy() for batch in loader.batches(batches)])


def by_pillow(paths, size=64):
    return np.stack(list(decode_pillow.decode(paths, crop="auto", size=size, workers=2)))


def differences(ours, theirs):
    """Levels, all of them and those inside of the outermost ring."""
    levels = np.abs(ours.astype(int) - theirs)
    return levels, levels[:, 1:-1, 1:-1]


@pytest.fixture
def dali_count(monkeypatch):
    """Counts the pictures given to DALI, so that a test cannot pass on Pillow's work alone."""
    counted = []
    original = DaliLoader._plain_jpeg

    def plain_jpeg(self, index):
        sample = original(self, index)
        counted.append(sample is not None)
        return sample

    monkeypatch.setattr(DaliLoader, "_plain_jpeg", plain_jpeg)
    return lambda: sum(counted)


@pytest.fixture
def many(tmp_path):
    save_many(tmp_path)
    return tmp_path


@pytest.mark.parametrize("size", [32, 64, 160])
def test_faces_within_the_stated_bounds(tmp_path, dali_count, size):
    save_faces(tmp_path, 40)
    ours = load(loader_of(tmp_path, size=size), in_batches(range(40), BATCH))
    all_levels, inner_levels = differences(ours, by_pillow(sorted(tmp_path.iterdir()), size))
    assert inner_levels.max() <= 1
    assert all_levels.max() <= 19
    assert dali_count() == 40


def test_real_pictures(dali_count):
    folder = os.environ.get("FASTVAE_CELEBA_RAW")
    if not folder:
        pytest.skip("FASTVAE_CELEBA_RAW names no folder of 178x218 JPEGs")
    paths = sorted(Path(folder).glob("*.jpg"))[:1000]
    count = len(paths)
    names, splits, attributes = [path.name for path in paths], np.zeros(count, np.uint8), np.empty((count, 0), np.uint8)
    source = Source("folder", Path(folder), paths, names, splits, "all train", attributes)
    loader = DaliLoader(PictureFiles(source, 64), batch_size=64, device=CPU, workers=2)
    all_levels, inner_levels = differences(load(loader, in_batches(range(count), 64)), by_pillow(paths))
    assert inner_levels.max() <= 1
    assert all_levels.max() <= 19
    assert dali_count() == count > 0


def test_the_same_crop_for_all_shapes(tmp_path, dali_count):
    # Odd and even sides, wide and tall; noise, in which a crop that is off by one shows.
    for number, shape in enumerate([(40, 41), (41, 40), (63, 32), (33, 64), (178, 218), (178, 217), (9, 200), (8, 8)]):
        photo(*shape, seed=number).save(tmp_path / f"{number}.jpg", quality=95)
    ours = load(loader_of(tmp_path, size=16), in_batches(range(8), BATCH))
    _, inner_levels = differences(ours, by_pillow(sorted(tmp_path.iterdir()), 16))
    assert inner_levels.max() <= 1
    assert dali_count() == 8


def test_files_that_are_no_plain_jpegs_are_pillows(tmp_path, dali_count, caplog):
    save_faces(tmp_path, 12)
    odd = make_odd(tmp_path)
    with caplog.at_level("INFO", logger="fastvae"):
        ours = load(loader_of(tmp_path), in_batches(range(12), BATCH))
    expected = by_pillow(sorted(tmp_path.iterdir()))
    for index in odd.values():
        assert np.array_equal(ours[index], expected[index])
    assert differences(ours, expected)[1].max() <= 1
    assert dali_count() == 12 - len(odd)
    assert caplog.text.count("plain JPEGs") == 1


@pytest.mark.parametrize("places", [[0], [7, 8], [20], [44], [0, 1, 2, 44]], ids=str)
def test_pictures_that_look_whole_and_are_broken(many, caplog, places):
    for place in places:
        hollow_out(many / f"{place:04}.jpg")
    loader = loader_of(many)
    twice = [*range(45), *range(45)]
    ours = load(loader, in_batches(twice, BATCH))
    following = {place: next(at for at in range(place, 400) if at not in places) for place in places}
    paths = [many / f"{following.get(index, index):04}.jpg" for index in range(45)]
    assert np.array_equal(ours[:45], ours[45:])
    assert np.array_equal(ours[places], by_pillow([paths[place] for place in places]))
    assert differences(ours[:45], by_pillow(paths))[1].max() <= 1
    assert [caplog.text.count(f"{place:04}.jpg is broken") for place in places] == [1] * len(places)


def test_broken_files_of_every_kind_in_any_order(many):
    loaders = [loader_of(many) for _ in range(3)]
    broken = spoil(many)
    expected = None
    for seed, loader in enumerate(loaders):
        order = epoch_order(60, seed=seed, epoch=0)
        images = np.empty((60, 64, 64, 3), np.uint8)
        images[order] = load(loader, in_batches(order, BATCH))
        expected = images if expected is None else expected
        assert np.array_equal(images, expected)
    assert np.array_equal(expected[0], by_pillow([many / "0001.jpg"])[0])
    assert np.array_equal(expected[list(broken.values())[1:]], np.stack(3 * [by_pillow([many / "0010.jpg"])[0]]))


def test_what_only_dali_refuses_is_pillows(many, monkeypatch, caplog):
    # DALI gets rubbish in the place of a file that Pillow decodes.
    original = DaliLoader._plain_jpeg
    rubbish = dali_pipeline.sample(b"rubbish" * 20, (30, 40, 168, 178))
    monkeypatch.setattr(
        DaliLoader, "_plain_jpeg", lambda self, index: rubbish if index in (3, 21, 22) else original(self, index)
    )
    loader = loader_of(many)
    with caplog.at_level("INFO", logger="fastvae"):
        ours = load(loader, in_batches([*range(40)] * 2, BATCH))
    expected = by_pillow([many / f"{index:04}.jpg" for index in range(40)])
    assert np.array_equal(ours[[3, 21, 22]], expected[[3, 21, 22]])
    assert np.array_equal(ours[:40], ours[40:])
    assert differences(ours[:40], expected)[1].max() <= 1
    assert caplog.text.count("DALI rejects") == 3 and "broken" not in caplog.text


def test_more_than_one_percent_broken_stops(many):
    for index in range(10, 20):
        hollow_out(many / f"{index:04}.jpg")
    batches = loader_of(many).batches(in_batches(range(45), BATCH))
    with pytest.raises(FastvaeError, match=r"broken, and the limit is 4 \(1 %\).*First: 0010.jpg: "):
        list(batches)


def test_a_failure_that_is_no_pictures_fault_ends_the_run(many, monkeypatch):
    loader = loader_of(many)
    batches = loader.batches(in_batches(range(45), BATCH))
    next(batches)

    def fail(pipeline, count, replaced):
        raise RuntimeError("which was used here\n\nencountered:\n\nout of memory\nCurrent pipeline is dead")

    monkeypatch.setattr(load_dali.HostOutputs, "take", lambda self, *arguments: fail(*arguments))
    with pytest.raises(FastvaeError, match="DALI failed, and not because of a picture: out of memory; use --loader"):
        next(batches)


def test_no_pipeline_can_be_built(many, monkeypatch):
    def build(*arguments, **options):
        raise RuntimeError("no device")

    loader = loader_of(many)
    monkeypatch.setattr(dali_pipeline, "build", build)
    with pytest.raises(FastvaeError, match=r"DALI failed, and not because of a picture: .*no device"):
        next(loader.batches(in_batches(range(8), BATCH)))


def test_dali_that_is_not_installed(many, monkeypatch):
    monkeypatch.setattr(decode_dali, "is_available", lambda: False)
    with pytest.raises(FastvaeError, match=r"pip install -e '\.\[dali\]'"):
        loader_of(many)


def test_a_batch_that_is_too_large(many):
    with pytest.raises(ValueError, match="1 to 8 images; got 9"):
        next(loader_of(many).batches([np.arange(9)]))


@pytest.mark.gpu
def test_a_gpu_agrees_with_pillow(many):
    odd = make_odd(many)
    hollow_out(many / "0044.jpg")
    ours = load(loader_of(many, torch.device("cuda")), in_batches(range(45), BATCH))
    paths = [many / f"{index + (index == 44):04}.jpg" for index in range(45)]
    expected = by_pillow(paths)
    all_levels, inner_levels = differences(ours, expected)
    assert all_levels.mean(axis=(1, 2, 3)).max() <= 2
    assert inner_levels.mean() <= 1
    for index in [*odd.values(), 44]:
        assert np.array_equal(ours[index], expected[index])


@pytest.mark.gpu
def test_a_gpus_pixels_do_not_depend_on_the_batch(many):
    loader = loader_of(many, torch.device("cuda"))
    order = epoch_order(200, seed=0, epoch=0)
    images = np.empty((2, 200, 64, 64, 3), np.uint8)
    images[0] = load(loader, in_batches(range(200), BATCH))
    images[1, order] = load(loader, in_batches(order, 3))
    assert np.array_equal(*images)


@pytest.mark.gpu
def test_batches_are_ordered_on_the_readers_stream(many):
    """The reader's stream is far behind the host, so that a batch that is overwritten or read early shows."""
    loader = loader_of(many, torch.device("cuda"))
    expected = load(loader, in_batches(range(200), BATCH))
    images = torch.zeros(200, 64, 64, 3, dtype=torch.uint8, device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for number, batch in enumerate(loader.batches(in_batches(range(200), BATCH))):
            torch.cuda._sleep(20_000_000)  # some 10 ms
            images[number * BATCH : (number + 1) * BATCH].copy_(batch, non_blocking=True)
    stream.synchronize()
    assert np.array_equal(images.cpu().numpy(), expected)


@pytest.mark.gpu
def test_the_host_does_not_wait_for_a_batch(many):
    batches = loader_of(many, torch.device("cuda")).batches(in_batches(range(80), BATCH))
    asleep = torch.cuda.Event()
    with torch.cuda.stream(torch.cuda.Stream()):
        next(batches)
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000_000)  # some second
        asleep.record()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(4):
                next(batches)
            assert not asleep.query()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        batches.close()
