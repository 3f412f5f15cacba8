"""Every feed hands out the batches of the order, wherever it keeps the images and wherever a run begins."""

import numpy as np
import pytest
import torch

from fastvae.data.flips import flips
from fastvae.data.loaders.packed import PackedLoader
from fastvae.train.device_feed import ResidentFeed, StreamFeed
from fastvae.train.feed import HostFeed, choose_feed
from fastvae.train.order import BatchOrder

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
KINDS = {
    "host": lambda loader, train, order, device: HostFeed(loader, train, order),
    "resident": ResidentFeed,
    "stream": StreamFeed,
}


class CountingLoader(PackedLoader):
    """Counts what it is asked for."""

    def __init__(self, images):
        super().__init__(images)
        self.asked, self.open = [], 0

    def batches(self, indices):
        def noted():
            for batch in indices:
                self.asked.append(batch)
                yield batch

        self.open += 1
        try:
            yield from super().batches(noted())
        finally:
            self.open -= 1


def feed(packed, kind: str, batch_size: int = 12, device: str = "cpu", *, flip: bool = False):
    train = packed.indices("train")
    order = BatchOrder(len(train), batch_size, seed=3, flip=flip)
    return KINDS[kind](CountingLoader(packed), train, order, torch.device(device))


def expected(packed, order: BatchOrder, step: int) -> torch.Tensor:
    return torch.from_numpy(np.asarray(packed.images[packed.indices("train")[order[step]]]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_batches_are_those_of_the_order(packed, kind, first, device):
    # 40 images in batches of 12: three steps an epoch and 4 images left out, other ones in each epoch.
    made = feed(packed, kind, device=device)
    for step in range(first, first + 9):
        made.ready(step)
        pixels, flips = made.batch()
        assert torch.equal(pixels.cpu(), expected(packed, made.order, step)) and flips is None, step
    made.close()
    assert made._loader.open == 0


def flipped_in(packed, kind: str, device: str, batch_size: int, first: int, steps: int) -> dict[tuple[int, int], bool]:
    """Whether each image, by (epoch, index in the packed file), is flipped in some steps of a run."""
    made = feed(packed, kind, batch_size, device, flip=True)
    seen = {}
    for step in range(first, first + steps):
        made.ready(step)
        pixels, flips = made.batch()
        assert torch.equal(pixels.cpu(), expected(packed, made.order, step)), "the step flips them, not the feed"
        images = packed.indices("train")[made.order[step]]
        seen |= {(step // made.order.steps_per_epoch, i): bool(f) for i, f in zip(images.tolist(), flips, strict=True)}
    made.close()
    return seen


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_flipped_is_a_function_of_image_and_epoch(packed, kind, device):
    """For every feed, from wherever it begins, for any size of a batch."""
    coins = {(e, i): f for e in range(4) for i, f in enumerate(flips(np.arange(40), seed=3, epoch=e).tolist())}
    for batch_size, first, steps in [(12, 0, 9), (12, 5, 6), (10, 2, 9)]:
        seen = flipped_in(packed, kind, device, batch_size, first, steps)
        assert seen.items() <= coins.items() and len(seen) == batch_size * steps


@pytest.mark.parametrize("kind", ["resident", "stream"])
def test_a_step_that_is_undone_can_be_made_ready_again(packed, kind):
    made = feed(packed, kind)
    for step in (0, 1, 2):
        made.ready(step)
        before = [t.clone() for t in made.state]
        made.batch()
        for tensor, copy in zip(made.state, before, strict=True):
            tensor.copy_(copy)
        made.ready(step)
        assert torch.equal(made.batch()[0], expected(packed, made.order, step)), step
    made.close()


@pytest.mark.parametrize("first", [0, 4])
def test_resident_images_are_loaded_once(packed, first):
    made = feed(packed, "resident")
    for step in range(first, first + 8):
        made.ready(step)
        made.batch()
    loaded = np.concatenate(made._loader.asked)
    assert sorted(loaded) == sorted(packed.indices("train"))
    assert made._loader.open == 0


def test_a_loader_that_fails_is_heard(packed):
    made = feed(packed, "resident")
    made._train = made._train + 1000
    with pytest.raises(IndexError):
        made.ready(0)


def test_the_choice(packed):
    train = packed.indices("train")
    order = BatchOrder(len(train), 8, seed=0)
    for resident, kind in (("auto", HostFeed), ("off", HostFeed), ("on", ResidentFeed)):
        made, reason = choose_feed(PackedLoader(packed), train, order, device=torch.device("cpu"), resident=resident)
        assert type(made) is kind and "images" in reason


@pytest.mark.gpu
def test_the_choice_on_a_gpu(packed, monkeypatch):
    train = packed.indices("train")
    order = BatchOrder(len(train), 8, seed=0)
    device = torch.device("cuda")
    assert isinstance(choose_feed(PackedLoader(packed), train, order, device=device, resident="auto")[0], ResidentFeed)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 2000))
    made, reason = choose_feed(PackedLoader(packed), train, order, device=device, resident="auto")
    assert isinstance(made, StreamFeed) and "GB of the GPU's memory are free" in reason
