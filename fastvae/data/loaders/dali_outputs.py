"""Converts finished DALI batches to torch tensors."""

from collections import deque
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fastvae.data.loaders.loader import empty_batch

# Copies in flight to a GPU, 0.8 MB each for 64 images of 64x64 pixels.
_MAX_HELD = 16


class Outputs(Protocol):
    """The destination of batches."""

    def take(self, pipeline: Any, count: int, replaced: dict[int, np.ndarray]) -> Tensor:
        """The next batch of a pipeline, scheduled before this call.

        Args:
            pipeline: of `dali_pipeline.build`.
            count: images in the batch.
            replaced: uint8 [H, W, 3] by row: images that replace DALI's.

        Returns:
            uint8 [count, H, W, 3].
        """
        ...

    def close(self) -> None:
        """Waits until DALI's memory is no longer in use."""
        ...


class HostOutputs:
    """Batches on the host, in pinned memory if CUDA is available."""

    def __init__(self, image_size: int):
        self._image_size = image_size

    def take(self, pipeline: Any, count: int, replaced: dict[int, np.ndarray]) -> Tensor:
        """See `Outputs.take`."""
        (images,) = pipeline.share_outputs()
        batch = empty_batch(count, self._image_size)
        rows = batch.numpy()
        rows[:] = images.as_array()
        for row, image in replaced.items():
            rows[row] = image
        pipeline.release_outputs()
        return batch

    def close(self) -> None:
        """Does nothing."""


class DeviceOutputs:
    """Batches on a GPU, in stream order: the host waits until DALI's threads have enqueued a batch, not for the GPU.

    `share_outputs` with a stream makes that stream wait for DALI's work, so a copy enqueued on it is ordered after
    DALI. DALI's dynamic executor reuses memory once its owner is deleted, so the owner is kept until an event after the
    copy has completed. Torch does the copy, because DALI's `copy_to_external` makes DALI's stream wait for the copy,
    and so for everything that the caller enqueued before it. Torch allocates the tensor on the current stream,
    which is the caller's.
    """

    def __init__(self, image_size: int, device: torch.device):
        self._image_size, self._device = image_size, device
        self._held: deque[tuple[torch.cuda.Event, Any]] = deque()

    def take(self, pipeline: Any, count: int, replaced: dict[int, np.ndarray]) -> Tensor:
        """See `Outputs.take`."""
        stream = torch.cuda.current_stream(self._device)
        (images,) = pipeline.share_outputs(cuda_stream=stream)
        size = self._image_size
        batch = torch.empty(count, size, size, 3, dtype=torch.uint8, device=self._device)
        decoded = torch.from_dlpack(images.as_tensor())
        batch.copy_(decoded, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(stream)
        self._held.append((copied, (images, decoded)))
        pipeline.release_outputs()
        for row, image in replaced.items():
            batch[row].copy_(torch.from_numpy(image.copy()).pin_memory(), non_blocking=True)
        while self._held and (self._held[0][0].query() or len(self._held) > _MAX_HELD):
            self._drop()
        return batch

    def close(self) -> None:
        """See `Outputs.close`."""
        while self._held:
            self._drop()

    def _drop(self) -> None:
        # The event first, then the memory.
        self._held[0][0].synchronize()
        self._held.popleft()
