"""The contenders: loaders of images, each as an endless iterator of batches on the device."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.loader import peer
from bench.measuring.ours import OURS
from fastvae.data.decoders import dali, pillow
from fastvae.data.loaders.loader import Loader
from fastvae.data.loaders.packed import PackedLoader
from fastvae.data.loaders.picture_files import PictureFiles
from fastvae.data.loaders.pillow import PillowLoader
from fastvae.data.order import epoch_order
from fastvae.data.packed import PackedImages
from fastvae.data.prepare import prepare
from fastvae.data.sources.folder import read_folder

# Of the names of ours.
PREFIX = f"{OURS}: "
PEER = "torch DataLoader + Pillow"
# Batches that a loader of ours may have ready when nobody takes one: in DALI, read for it, and being read.
_OURS_AHEAD = 8


@dataclass(frozen=True)
class Settings:
    """What is loaded.

    Attributes:
        device: where batches are wanted.
        size: pixels a side.
        batch: images of a batch.
        workers: threads, and the peer's processes.
        batches: of one sample.
        rounds: samples of each contender.
        images: JPEGs.
    """

    device: str
    size: int
    batch: int
    workers: int
    batches: int
    rounds: int
    images: int


@dataclass(frozen=True)
class Contender:
    """One of them.

    Attributes:
        what: a short description.
        batches: endless, uint8 [batch, size, size, 3] on the device; the first holds images 0 to batch - 1.
        ahead: how many batches it may have ready when nobody takes one.
        is_right: whether the first batch, uint8 on the host, is what it should be, given Pillow's pixels.
        close: ends its threads or processes.
    """

    what: str
    batches: Iterator[Tensor]
    ahead: int
    is_right: Callable[[np.ndarray, np.ndarray], bool]
    close: Callable[[], None]


def contenders(paths: list[Path], folder: Path, chosen: Settings, note: Callable[[str], None]) -> dict[str, Contender]:
    """All that run on this machine.

    Args:
        paths: the JPEGs, all in one folder.
        folder: for the packed file.
        chosen: what is loaded.
        note: called with a message about what is left out.
    """
    device = torch.device(chosen.device)
    made = {}

    def add(name: str, what: str, batches: Iterator[Tensor], ahead: int, is_right=np.array_equal) -> None:
        on_device = (batch.to(device, non_blocking=True) for batch in batches)
        made[name] = Contender(what, on_device, ahead, is_right, close=getattr(batches, "close", on_device.close))

    def add_ours(name: str, what: str, loader: Loader, is_right=np.array_equal) -> None:
        add(PREFIX + name, what, loader.batches(_orders(chosen)), _OURS_AHEAD, is_right)

    # First, and its workers with it: they are forked, and the others start threads.
    batches = peer.batches(paths, size=chosen.size, batch_size=chosen.batch, workers=chosen.workers)
    ahead = peer.PREFETCH_FACTOR * chosen.workers
    add(PEER, f"{chosen.workers} processes, prefetch_factor {peer.PREFETCH_FACTOR}", batches, ahead)
    pictures = PictureFiles(read_folder(paths[0].parent), chosen.size)
    add_ours("Pillow", f"{chosen.workers} threads", PillowLoader(pictures, workers=chosen.workers))
    if not dali.is_available():
        note("DALI is not installed: not measured")
    else:
        from fastvae.data.loaders.dali import DaliLoader

        for kind, where in (("cpu", "the CPU"), ("cuda", "the GPU")):
            if kind == "cuda" and chosen.device == "cpu":
                note("no GPU: DALI on the GPU was not measured, and no copies to one")
                continue
            loader = DaliLoader(pictures, batch_size=chosen.batch, device=torch.device(kind), workers=chosen.workers)
            is_right = _within_dalis_bounds if kind == "cpu" else _like_nvjpegs
            add_ours(f"DALI on {where}", f"{chosen.workers} threads", loader, is_right)
    packed_path = folder / "packed.fvae"
    prepare(paths[0].parent, packed_path, image_size=chosen.size, decoder="pillow", progress=False)
    packed = PackedImages.open(packed_path)
    add_ours("packed", "memory map, 1 thread", PackedLoader(packed))
    add(PREFIX + "resident", "index_select on the device", _resident(packed, chosen), 0)
    return made


def pillows_pixels(paths: list[Path], chosen: Settings) -> np.ndarray:
    """uint8 [batch, size, size, 3]: what the first batches should be."""
    decoded = pillow.decode(paths[: chosen.batch], crop="auto", size=chosen.size, workers=1)
    return np.stack(list(decoded))


def _orders(chosen: Settings) -> Iterator[np.ndarray]:
    """Endless batches of indices, the first one in ascending order."""
    yield np.arange(chosen.batch)
    epoch = 0
    while True:
        order = epoch_order(chosen.images, seed=0, epoch=epoch)
        for at in range(0, chosen.images - chosen.batch + 1, chosen.batch):
            yield order[at : at + chosen.batch]
        epoch += 1


def _resident(packed: PackedImages, chosen: Settings) -> Iterator[Tensor]:
    pixels = torch.from_numpy(np.array(packed.images)).to(chosen.device)
    yield pixels[: chosen.batch]
    order = torch.randperm(chosen.images, device=chosen.device)
    while True:
        for at in range(0, chosen.images - chosen.batch + 1, chosen.batch):
            yield pixels.index_select(0, order[at : at + chosen.batch])


def _within_dalis_bounds(images: np.ndarray, pillow: np.ndarray) -> bool:
    """As fastvae/data/loaders/dali.py states them: 1 level inside, 19 in the outermost ring."""
    levels = np.abs(images.astype(int) - pillow)
    return levels[:, 1:-1, 1:-1].max() <= 1 and levels.max() <= 19


def _like_nvjpegs(images: np.ndarray, pillow: np.ndarray) -> bool:
    """A mean of 2 levels in every image."""
    return np.abs(images.astype(int) - pillow).mean(axis=(1, 2, 3)).max() <= 2
