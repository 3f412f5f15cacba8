"""Batches of JPEGs decoded by NVIDIA DALI, on a GPU (nvJPEG) or on the CPU, with the same pipeline.

Host threads read the files a few batches ahead and check their headers, 25 us per picture. Plain JPEGs (`plain_jpeg`)
go to DALI as bytes with their crop box. Pillow decodes all other files, and those that DALI rejects, in the same
threads and into their rows of DALI's batch. So it does not matter how DALI treats orientation, CMYK,
truncated files, or a PNG named .jpg.

Pixels on the CPU differ from Pillow's by at most 1 level inside, and by at most 19 in the outermost ring of pixels,
where DALI's antialiased resize repeats the edge and Pillow renormalises its weights (6,000 CelebA pictures, 178x218
to 64x64; means of 0.13 and 0.54 levels). A GPU decodes JPEGs with different arithmetic; a test allows a mean of 2.

Errors: a DALI pipeline that raises cannot be used any more, and does not report which picture failed. The pictures of
all batches that are in DALI are then decoded one by one, the rejected ones are remembered, and a new pipeline starts
with the first of these batches. Each failure either finds a picture that is never given to DALI again, or ends the run
with DALI's message.
"""

import logging
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from fastvae.data.decoders.crop import crop_box
from fastvae.data.decoders.plain_jpeg import plain_jpeg_size, read_if_small
from fastvae.data.loaders import dali_pipeline
from fastvae.data.loaders.dali_outputs import DeviceOutputs, HostOutputs, Outputs
from fastvae.data.loaders.dali_pipeline import QUEUE_DEPTH, Sample
from fastvae.data.loaders.loader import started_ahead
from fastvae.data.loaders.picture_files import CROP, PictureFiles
from fastvae.errors import FastvaeError
from fastvae.files.places import shown

_AHEAD = 4
# Pictures per task of the reading threads: small enough that several threads work on one batch.
_TASK = 16
# DALI's buffers never shrink, and 64 pictures of this size are 0.8 GB.
_MAX_PIXELS = 2048 * 2048
_logger = logging.getLogger("fastvae")


@dataclass
class _Part:
    """Pictures ready for DALI: a sample for each, blank if Pillow decoded it; and Pillow's images, by row."""

    indices: np.ndarray
    samples: list[Sample] = field(default_factory=list)
    replaced: dict[int, np.ndarray] = field(default_factory=dict)

    def for_dali(self) -> dict[int, Sample]:
        """The samples that DALI decodes, by index."""
        rows = enumerate(zip(self.indices.tolist(), self.samples, strict=True))
        return {index: sample for row, (index, sample) in rows if row not in self.replaced}


class _Queue:
    """Batches in progress; the first `fed` of them are in DALI."""

    def __init__(self):
        self.batches: list[_Part] = []
        self.fed = 0

    def feed(self) -> list[Sample]:
        """The source of the DALI pipeline: the samples of the next batch."""
        if self.fed == len(self.batches):
            raise StopIteration
        self.fed += 1
        return self.batches[self.fed - 1].samples

    def pop(self) -> None:
        """Removes the first batch, which has been delivered."""
        del self.batches[0]
        self.fed -= 1


class DaliLoader:
    """A `loader.Loader` of picture files; broken ones are replaced as in `PictureFiles`.

    Args:
        pictures: the files; Pillow decodes those that are not JPEGs.
        batch_size: largest number of images in a batch.
        device: of the batches, a GPU or the CPU.
        workers: number of DALI's threads and also of the threads that read files, 1 or more.

    Raises:
        FastvaeError: DALI is not installed.
    """

    def __init__(self, pictures: PictureFiles, *, batch_size: int, device: torch.device, workers: int):
        from fastvae.data.decoders import dali as decode_dali

        if not decode_dali.is_available():
            raise FastvaeError(
                "--loader dali needs DALI, which cannot be imported; run `pip install -e '.[dali]'` "
                "(nvidia-dali-cuda120 for CUDA 12), or use --loader packed or pillow"
            )
        self.image_size = pictures.image_size
        self._pictures, self._batch_size, self._workers = pictures, batch_size, workers
        self._device = device
        device_id = None
        if device.type == "cuda":
            device_id = torch.cuda.current_device() if device.index is None else device.index
        self._options = {"image_size": self.image_size, "threads": workers, "device_id": device_id}
        self._blank = dali_pipeline.blank()
        # Indices of pictures that DALI rejected, with its messages.
        self._rejected: dict[int, str] = {}
        self._has_logged_pillow = False

    def batches(self, indices: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """See `loader.Loader.batches`; on a GPU the batches are on it.

        Raises:
            FastvaeError: DALI fails for a reason other than a picture, or more than 1 % of the data set is broken.
        """
        pool = ThreadPoolExecutor(self._workers, "dali loader")
        outputs: Outputs = HostOutputs(self.image_size)
        if self._device.type == "cuda":
            outputs = DeviceOutputs(self.image_size, self._device)
        read = started_ahead(lambda batch: self._start(pool, batch), indices, ahead=_AHEAD)
        queue = _Queue()
        pipeline = None
        try:
            while True:
                queue.batches.extend(map(self._without_rejected, islice(read, QUEUE_DEPTH - len(queue.batches))))
                if not queue.batches:
                    return
                first = queue.batches[0]
                try:
                    if pipeline is None:
                        queue.fed = 0
                        pipeline = dali_pipeline.build(queue.feed, batch_size=self._batch_size, **self._options)
                    pipeline.schedule_run()
                    images = outputs.take(pipeline, len(first.indices), first.replaced)
                # DALI has no exception class of its own.
                except Exception as error:
                    pipeline = None
                    self._find_rejected(queue.batches, error)
                    queue.batches = [self._without_rejected(batch) for batch in queue.batches]
                    continue
                queue.pop()
                yield images
        finally:
            pool.shutdown(cancel_futures=True)
            outputs.close()
            del pipeline

    def _start(self, pool: ThreadPoolExecutor, indices: np.ndarray) -> Callable[[], _Part]:
        if not 1 <= len(indices) <= self._batch_size:
            raise ValueError(f"a batch must have 1 to {self._batch_size} images; got {len(indices)}")
        tasks = [pool.submit(self._read, indices[at : at + _TASK]) for at in range(0, len(indices), _TASK)]

        def finish() -> _Part:
            batch = _Part(indices)
            for task in tasks:
                part = task.result()
                at = len(batch.samples)
                batch.samples += part.samples
                batch.replaced.update({at + row: image for row, image in part.replaced.items()})
            return batch

        return finish

    def _read(self, indices: np.ndarray) -> _Part:
        part = _Part(indices)
        for row, index in enumerate(indices.tolist()):
            sample = None if index in self._rejected else self._plain_jpeg(index)
            if sample is None:
                part.replaced[row] = self._pictures.decode(index)
            part.samples.append(sample or self._blank)
        return part

    def _plain_jpeg(self, index: int) -> Sample | None:
        """The sample of a plain JPEG; None if Pillow has to decode the file or report its error."""
        path = self._pictures.paths[index]
        try:
            data = read_if_small(path)
            size = None if data is None else plain_jpeg_size(data)
            if size is not None and size[0] * size[1] <= _MAX_PIXELS:
                return dali_pipeline.sample(data, crop_box(*size, CROP))
        except (OSError, FastvaeError):
            return None
        if not self._has_logged_pillow:
            self._has_logged_pillow = True
            _logger.info(
                "Pillow decodes files other than plain JPEGs (8-bit JFIF without EXIF), such as %s", shown(path)
            )
        return None

    def _without_rejected(self, batch: _Part) -> _Part:
        """The batch, read again if DALI has rejected one of its pictures since."""
        if not self._rejected or self._rejected.keys().isdisjoint(batch.for_dali()):
            return batch
        return self._read(batch.indices)

    def _find_rejected(self, batches: list[_Part], error: Exception) -> None:
        """Remembers the pictures in these batches that DALI rejects.

        Raises:
            FastvaeError: DALI rejects none of them.
        """
        suspects = {index: sample for batch in batches for index, sample in batch.for_dali().items()}
        try:
            # Out of memory or a lost GPU must not be taken for many broken pictures.
            works = not dali_pipeline.rejected({0: self._blank}, **self._options)
            rejected = dali_pipeline.rejected(suspects, **self._options) if works else {}
        except Exception:  # no pipeline can be built
            rejected = {}
        if not rejected:
            raise FastvaeError(
                f"DALI failed, and not because of a picture: {dali_pipeline.reason(error)}; "
                "use --loader packed or pillow"
            ) from error
        self._rejected.update(rejected)
        for index, reason in rejected.items():
            _logger.info("DALI rejects %s (%s); Pillow decodes it", shown(self._pictures.paths[index]), reason)
