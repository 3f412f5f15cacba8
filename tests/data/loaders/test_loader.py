"""What all loaders promise, of each of them."""

import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvae.data.decoders import dali as decode_dali
from fastvae.data.decoders import pillow as decode_pillow
from fastvae.data.loaders.loader import started_ahead
from fastvae.data.loaders.packed import PackedLoader
from fastvae.data.loaders.pillow import PillowLoader
from fastvae.data.order import epoch_order
from fastvae.data.packed import PackedImages
from fastvae.data.prepare import prepare
from tests.data.jpeg_folder import in_batches, pictures_in, save_faces

COUNT, BATCH, SIZE = 45, 8, 32
# DALI's resize treats the outermost ring of pixels otherwise (`load_dali`).
RING = {"packed": 0, "pillow": 0, "dali": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    save_faces(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "faces.fvae"
    prepare(folder, path, image_size=SIZE, decoder="pillow", progress=False)
    return PackedImages.open(path)


@pytest.fixture(params=["packed", "pillow", "dali"])
def loader(request, folder, packed):
    if request.param == "packed":
        return PackedLoader(packed)
    if request.param == "pillow":
        return PillowLoader(pictures_in(folder, SIZE), workers=2)
    if not decode_dali.is_available():
        pytest.skip("DALI is not installed")
    from fastvae.data.loaders.dali import DaliLoader

    return DaliLoader(pictures_in(folder, SIZE), batch_size=BATCH, device=torch.device("cpu"), workers=2)


def load(loader, batches):
    return [batch.numpy().copy() for batch in loader.batches(batches)]


def test_the_pixels_that_were_asked_for_in_order(loader, folder, request):
    paths = sorted(folder.iterdir())
    expected = np.stack(list(decode_pillow.decode(paths, crop="auto", size=SIZE, workers=1)))
    order = epoch_order(COUNT, seed=1, epoch=0)
    batches = load(loader, in_batches(order, BATCH))
    # The last batch is not full, and complete all the same.
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 5]
    difference = np.abs(np.concatenate(batches).astype(int) - expected[order])
    ring = RING[request.node.callspec.params["loader"]]
    assert difference.max() <= ring
    assert difference[:, 1:-1, 1:-1].max() <= min(ring, 1)


def test_pixels_depend_on_nothing_but_the_index(loader):
    by_index = dict(enumerate(np.concatenate(load(loader, in_batches(range(COUNT), BATCH)))))
    order = epoch_order(COUNT, seed=2, epoch=3)
    for size in (1, 3, BATCH):
        for image, index in zip(np.concatenate(load(loader, in_batches(order, size))), order, strict=True):
            assert np.array_equal(image, by_index[index])


def test_the_shards_of_two_ranks_visit_every_image_once(loader):
    everything = np.concatenate(load(loader, in_batches(range(COUNT - 1), BATCH)))
    together = []
    for rank in range(2):
        shard = epoch_order(COUNT - 1, seed=5, epoch=1)[rank::2]
        together += load(loader, in_batches(shard, BATCH))
    together = np.concatenate(together)
    assert len(np.unique(everything, axis=0)) == COUNT - 1
    assert np.array_equal(np.unique(together, axis=0), np.unique(everything, axis=0))


def test_an_endless_order_is_read_a_few_batches_ahead(loader):
    asked = itertools.count()
    indices = (np.full(2, next(asked) % COUNT) for _ in itertools.repeat(None))
    batches = loader.batches(indices)
    for _ in range(20):
        next(batches)
    batches.close()
    assert 20 <= next(asked) <= 30


def test_a_closed_loader_leaves_no_threads(loader):
    def threads() -> set[str]:
        return {task.name for task in Path("/proc/self/task").iterdir()}

    load(loader, in_batches(range(9), BATCH))  # libraries start threads of their own on first use
    before = threads()
    batches = loader.batches(in_batches(list(range(COUNT)) * 5, BATCH))
    next(batches)
    own = threads() - before
    assert own
    batches.close()
    while own & threads():  # for ever, if one is left
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if "loader" in thread.name]


def test_what_the_order_raises_reaches_the_reader(loader):
    def indices():
        yield np.arange(4)
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        load(loader, indices())


def test_indices_out_of_range(loader):
    with pytest.raises(IndexError):
        load(loader, [np.array([0, COUNT])])


def test_started_ahead_starts_early_and_yields_in_order():
    started = []

    def start(item):
        started.append(item)
        return lambda: item * 10

    results = started_ahead(start, itertools.count(), ahead=3)
    assert next(results) == 0 and started == [0, 1, 2, 3]
    assert next(results) == 10 and started == [0, 1, 2, 3, 4]
    assert list(started_ahead(start, range(2), ahead=3)) == [0, 10]


@pytest.mark.gpu
def test_batches_on_the_host_are_pinned(folder, packed):
    for loader in (PackedLoader(packed), PillowLoader(pictures_in(folder, SIZE), workers=2)):
        assert all(batch.is_pinned() for batch in loader.batches(in_batches(range(10), BATCH)))
