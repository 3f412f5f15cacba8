"""A copy of many tensors on the host, made in one transfer that nothing waits for."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

# Bytes; the largest vector that a copying kernel reads at once is a quarter of it.
_ALIGNMENT = 64
Key = TypeVar("Key", bound=Hashable)


class Snapshot(Generic[Key]):
    """Tensors as they were at one moment.

    Args:
        tensors: on the host, in any layout.
        arrived: on a GPU, the event after which they are valid.
    """

    def __init__(self, tensors: dict[Key, Tensor], arrived: torch.cuda.Event | None):
        self._tensors, self._arrived = tensors, arrived
        self._is_here = arrived is None

    @property
    def has_arrived(self) -> bool:
        """Whether `read` would not wait. Once it has been true it stays so, even if the device fails."""
        if not self._is_here:
            try:
                self._is_here = self._arrived.query()
            except RuntimeError:  # the device has failed since
                return False
        return self._is_here

    def read(self) -> dict[Key, Tensor]:
        """The tensors, contiguous; any thread may wait for them here."""
        if not self._is_here:
            self._arrived.synchronize()
        return {key: tensor.contiguous() for key, tensor in self._tensors.items()}


class Snapshots:
    """Copies tensors of one device to the host.

    On a GPU they are gathered into one buffer on the device, and that is copied into one of pinned memory on a stream
    of its own, while training goes on: a few launches and one transfer, instead of one of each per tensor. Each buffer
    is as large as all tensors together, 78 MB for the paper's networks and optimisers, 95 MB with `--ema`; they
    are made at the first copy and kept.

    Args:
        device: of the tensors; some may be on the CPU nevertheless.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._gathered = torch.empty(0, dtype=torch.uint8)
        self._stream: torch.cuda.Stream | None = None

    @torch.no_grad()
    def take(self, tensors: Mapping[Key, Tensor]) -> Snapshot[Key]:
        """Copies the tensors as they are after the work that is enqueued now; on a GPU without waiting for it.

        The snapshot before must not be needed any more, since this one overwrites it.
        """
        here = {key: t.clone() for key, t in tensors.items() if t.device.type == "cpu"}
        there = {key: t for key, t in tensors.items() if key not in here}
        if not there:
            return Snapshot(here, None)
        if (size := gathered_bytes(there)) > len(self._gathered):
            self._gathered = torch.empty(size, dtype=torch.uint8, device=self._device)
            self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self._stream = torch.cuda.Stream(self._device)
        gather(there, self._gathered)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        arrived = torch.cuda.Event(blocking=True)  # a thread that waits leaves its core to others
        with torch.cuda.stream(self._stream):
            self._pinned.copy_(self._gathered, non_blocking=True)
            arrived.record()
        return Snapshot(dict(zip(tensors, _in_order(tensors, here, views(there, self._pinned)), strict=True)), arrived)


def _in_order(tensors: Mapping[Key, Tensor], *parts: dict[Key, Tensor]) -> list[Tensor]:
    return [next(part[key] for part in parts if key in part) for key in tensors]


def gathered_bytes(tensors: Mapping[Key, Tensor]) -> int:
    """Size of a buffer that `gather` fills."""
    return sum(_aligned(t.nbytes) for t in tensors.values())


def gather(tensors: Mapping[Key, Tensor], buffer: Tensor) -> None:
    """Copies tensors one after the other into a buffer, uint8 [at least `gathered_bytes`], a few launches per dtype."""
    into = views(tensors, buffer)
    for dtype in {t.dtype for t in tensors.values()}:
        keys = [key for key, t in tensors.items() if t.dtype == dtype]
        torch._foreach_copy_([into[key] for key in keys], [tensors[key] for key in keys])


def views(tensors: Mapping[Key, Tensor], buffer: Tensor) -> dict[Key, Tensor]:
    """Where `gather` puts each tensor, as a view of its shape and dtype.

    In its own layout, since torch copies lists of tensors in one launch only between equal strides.
    """
    result, start = {}, 0
    for key, tensor in tensors.items():
        strides = torch.empty_like(tensor, device="meta").stride()
        piece = buffer[start : start + tensor.nbytes].view(tensor.dtype)
        result[key] = piece.as_strided(tensor.shape, strides)
        start += _aligned(tensor.nbytes)
    return result


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
